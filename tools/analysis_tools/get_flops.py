"""What a model costs at deployment, and what distillation adds to training.

    python tools/analysis_tools/get_flops.py CONFIG [--shape H W] [--json]

CONFIG is a plain model's or a distiller's; no weights and no data are read.
MACs are multiply-adds of convolutions and matrix products for one image, each
counted once ("FLOPs" in most tables of models); normalisation, activations
and the distance itself are left out.

A training step is estimated from forward passes: three for what is trained
(forward, and twice that for the gradients of inputs and weights), one for the
teacher, which gets no gradient.
"""

import argparse
import contextlib
import copy
import json
import sys
from collections.abc import Callable, Sequence

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mmdiffkd.models.distillers import Distiller
from mmdiffkd.models.distillers.teacher import build_from_config
from mmdiffkd.utils import load_config

# Batch normalisation in train mode over a vector takes no batch of one.
BATCH_SIZE = 2
STEP_IN_FORWARDS = 3


def count_parameters(module: nn.Module) -> int:
    """The number of parameters, frozen ones included."""
    return sum(parameter.numel() for parameter in module.parameters())


@torch.no_grad()
def count_macs(run: Callable[[], object], batch_size: int = BATCH_SIZE) -> int:
    """Multiply-adds for one image of what a function runs.

    Args:
        run (Callable): Runs a batch through a network.
        batch_size (int): The size of that batch. Defaults to 2.

    Returns:
        int: Multiply-adds of convolutions and matrix products.
    """
    with FlopCounterMode(display=False) as counter:
        run()
    # The counter takes a multiply-add for two operations.
    return counter.get_total_flops() // (2 * batch_size)


def get_costs(config: Config, shape: Sequence[int] | None = None) -> dict:
    """Count parameters and MACs of deployment and of a training step.

    The model is built at random on the CPU; a teacher's checkpoint is not
    read.

    Args:
        config (Config): A plain model's or a distiller's whole config.
        shape (Sequence[int], optional): Height and width of an image.
            Defaults to None: a distiller's ``input_size``, else 224 x 224.

    Returns:
        dict: ``shape``; ``deployed`` (``parameters``, and ``macs`` of one
        image); for a distiller also ``teacher`` and ``entries`` (entry's
        name to what its necks and losses need) of the same form,
        ``step_macs`` (``student``, ``added``) and ``step_ratio``: a step
        with distillation over the student's own.
    """
    config = copy.deepcopy(config)
    if shape is None:
        shape = config.model.get('input_size') or 224
    height, width = (shape, shape) if isinstance(shape, int) else shape
    if 'teacher' in config.model:
        config.model.input_size = (height, width)
    init_default_scope(config.get('default_scope', 'mmengine'))
    model = build_from_config(config).eval()
    inputs = torch.zeros(BATCH_SIZE, 3, height, width)
    distills = isinstance(model, Distiller)
    student = model.student if distills else model
    costs = {
        'shape': [height, width],
        'deployed': {
            'parameters': count_parameters(student),
            'macs': count_macs(lambda: student(inputs, mode='tensor')),
        },
    }
    if not distills:
        return costs

    entries = model.distill.values()
    taps = sorted({tap for entry in entries for tap in entry.teacher_at})
    costs['teacher'] = {
        'parameters': count_parameters(model.teacher.network),
        'macs': count_macs(lambda: model.teacher(inputs, taps)),
    }
    costs['entries'] = {
        name: {
            'parameters': count_parameters(entry),
            'macs': count_macs(
                lambda name=name: model.train().check_batch(BATCH_SIZE, name)
            ),
        }
        for name, entry in model.distill.items()
    }
    own = STEP_IN_FORWARDS * costs['deployed']['macs']
    necks = sum(entry['macs'] for entry in costs['entries'].values())
    added = costs['teacher']['macs'] + STEP_IN_FORWARDS * necks
    costs['step_macs'] = {'student': own, 'added': added}
    costs['step_ratio'] = (own + added) / own
    return costs


def readable(number: float) -> str:
    """A count with a unit: ``'1.11 G'``."""
    for unit, size in (('G', 1e9), ('M', 1e6), ('k', 1e3)):
        if number >= size:
            return f'{number / size:.3g} {unit}'
    return f'{number:g}'


def describe(costs: dict) -> str:
    """What :func:`get_costs` found, as text."""
    rows = [('deployed', costs['deployed'])]
    if 'teacher' in costs:
        rows.append(('teacher, forward', costs['teacher']))
        rows += [
            (f'necks of {name!r}, forward', entry)
            for name, entry in costs['entries'].items()
        ]
    lines = [f'{"":<28}{"parameters":>12}{"MACs/image":>12}']
    lines += [
        f'{name:<28}{readable(row["parameters"]):>12}'
        f'{readable(row["macs"]):>12}'
        for name, row in rows
    ]
    lines.append('images of {} x {}'.format(*costs['shape']))
    if 'step_macs' in costs:
        step = costs['step_macs']
        lines += [
            '',
            'A training step, estimated from forward passes '
            f'({STEP_IN_FORWARDS} for what is trained, 1 for the teacher):',
            f'student alone {readable(step["student"])}, distillation adds '
            f'{readable(step["added"])}: {costs["step_ratio"]:.2f} times the '
            'arithmetic.',
        ]
    return '\n'.join(lines)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('config', help='a path, or package::name')
    parser.add_argument(
        '--shape',
        type=int,
        nargs=2,
        metavar=('H', 'W'),
        help="the image's size; default: the distiller's input_size, else "
        '224 224',
    )
    parser.add_argument('--json', action='store_true', help='print JSON')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    # What building a model prints stays out of the JSON.
    with contextlib.redirect_stdout(sys.stderr):
        costs = get_costs(load_config(args.config), args.shape)
    print(json.dumps(costs, indent=1) if args.json else describe(costs))


if __name__ == '__main__':
    main()
