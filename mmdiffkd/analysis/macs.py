"""What a model costs at deployment, and what distillation adds to training.

MACs are multiply-adds of convolutions and matrix products for one image, each
counted once. Normalisation, activations and the distance are left out.
"""

import copy
from collections.abc import Callable, Sequence
from functools import partial

import torch
from mmengine.config import Config
from mmengine.registry import OPTIMIZERS, init_default_scope
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mmdiffkd.models.distillers import Distiller
from mmdiffkd.models.distillers.forward import (
    WHOLE,
    arguments_of,
    forward_to_taps,
)
from mmdiffkd.models.distillers.image_shape import (
    find_shape,
    image_shapes,
)
from mmdiffkd.models.distillers.spec import teacher_label
from mmdiffkd.models.distillers.taps import Taps
from mmdiffkd.models.distillers.teacher import build_from_config
from mmdiffkd.utils import is_distiller

from .tables import aligned

# Batch normalisation in train mode over a vector takes no batch of one.
BATCH_SIZE = 2
STEP_IN_FORWARDS = 3
FLOAT32 = 4


def count_parameters(module: nn.Module, trained: bool = False) -> int:
    """The number of parameters, of all or of those that are trained."""
    return sum(
        parameter.numel()
        for parameter in module.parameters()
        if parameter.requires_grad or not trained
    )


def _cost(module: nn.Module, run: Callable[[], object]) -> dict[str, int]:
    trained = [p for p in module.parameters() if p.requires_grad]
    # Of a part of a parameter, as of Deformable DETR's queries, the counter
    # would look for a gradient that is not there.
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        macs = count_macs(run)
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
    return {'parameters': count_parameters(module), 'macs': macs}


@torch.no_grad()
def count_macs(run: Callable[[], object], batch_size: int = BATCH_SIZE) -> int:
    """Multiply-adds for one image of what a function runs.

    MMEngine's ``get_model_complexity_info`` traces one forward pass of one
    module, and cannot look at a loss or a step. Where both can count, they
    agree but for the normalisation that MMEngine adds.
    """
    with FlopCounterMode(display=False) as counter:
        run()
    # The counter takes a multiply-add for two operations.
    return counter.get_total_flops() // (2 * batch_size)


def get_costs(
    config: Config, shape: int | Sequence[int] | None = None
) -> dict:
    """Count parameters and MACs of deployment and of a training step.

    The model is built at random on the CPU; a teacher's checkpoint is not
    read.

    Args:
        config (Config): A plain model's or a distiller's whole config.
        shape (int or Sequence[int], optional): Height and width of an image.
            Defaults to None: that of the dry run before training, for a
            plain model what a distiller would take for it.

    Returns:
        dict: ``shape``; ``deployed`` (``parameters``, and ``macs`` of one
        image); for a distiller also ``teacher`` (all of them together),
        ``teachers`` and ``entries`` (by name) of the same form, ``trained``
        (the parameters that are, of ``student`` and ``necks``),
        ``step_macs`` (``student``, ``added``) and ``step_ratio``: a step with
        distillation over the student's own.
    """
    config = copy.deepcopy(config)
    if isinstance(shape, int):
        shape = shape, shape
    if shape is not None and is_distiller(config.model):
        whole = config.model.pop('input_shape', None)
        if isinstance(whole, Sequence):
            config.model.input_shape = (*whole[:-2], *shape)
        else:
            config.model.input_size = tuple(shape)
    init_default_scope(config.get('default_scope', 'mmengine'))
    return costs_of(build_from_config(config), shape)


def costs_of(model: nn.Module, shape: tuple[int, int] | None = None) -> dict:
    """The same of a model that is built and on the CPU.

    Args:
        model (nn.Module): A plain model or a distiller.
        shape (tuple[int, int], optional): Height and width of an image for
            a plain model. Defaults to None: see :func:`get_costs`.
    """
    model.eval()
    distills = isinstance(model, Distiller)
    if distills:
        student, input_shape = model.student, model.input_shape
    else:
        student = model
        shapes = image_shapes(model, shape)
        input_shape, *_ = find_shape(model, Taps(model, [], 'model'), shapes)
    inputs = torch.zeros(BATCH_SIZE, *input_shape)
    whole = arguments_of(student, [WHOLE], inputs)
    costs = {
        'shape': list(input_shape[-2:]),
        'deployed': _cost(
            student, lambda: forward_to_taps(student, inputs, whole)
        ),
    }
    if not distills:
        return costs

    entries = model.distill.values()
    costs['teachers'] = {}
    for name, teacher in model.teachers.items():
        read = [entry for entry in entries if name in entry.teachers]
        taps = sorted({tap for entry in read for tap in entry.teacher_at})
        costs['teachers'][name] = _cost(
            teacher.network,
            # What no entry reads does not run.
            partial(teacher, inputs, taps) if taps else lambda: None,
        )
    costs['teacher'] = {
        key: sum(cost[key] for cost in costs['teachers'].values())
        for key in ('parameters', 'macs')
    }
    costs['entries'] = {
        name: _cost(
            entry, partial(model.train().check_batch, BATCH_SIZE, name)
        )
        for name, entry in model.distill.items()
    }
    costs['trained'] = {
        'student': count_parameters(student, trained=True),
        'necks': count_parameters(model.distill, trained=True),
    }
    own = STEP_IN_FORWARDS * costs['deployed']['macs']
    necks = sum(entry['macs'] for entry in costs['entries'].values())
    added = costs['teacher']['macs'] + STEP_IN_FORWARDS * necks
    costs['step_macs'] = {'student': own, 'added': added}
    costs['step_ratio'] = (own + added) / own
    return costs


def count_state(optimizer: dict) -> int:
    """How many numbers an optimizer, a config, keeps for each parameter.

    Found by one step on a parameter of six numbers.
    """
    parameter = nn.Parameter(torch.ones(2, 3))
    parameter.grad = torch.ones_like(parameter)
    built = OPTIMIZERS.build({**optimizer, 'params': [parameter]})
    built.step()
    return sum(
        isinstance(value, torch.Tensor) and value.shape == parameter.shape
        for value in built.state[parameter].values()
    )


def get_scaling(config: Config, costs: dict, gpus: int) -> dict:
    """Count what each of several GPUs does in a step.

    Bytes sent are those of collectives in a ring. DDP reduces each gradient
    on every GPU. ZeRO reduces a gradient on the GPU that has its share of the
    optimizer's state, and then sends the new weights to all. Both send twice
    the parameters, less a GPU's own share. FSDP gathers the student's weights
    in the forward and in the backward pass, gathers the necks' weights once,
    and reduces all gradients.

    Bytes held are those of weights, gradients, optimizer state and the
    teacher. Communication buffers and activations are left out.

    Args:
        config (Config): The distiller's whole config.
        costs (dict): What :func:`get_costs` found for it.
        gpus (int): How many there are.

    Returns:
        dict: ``gpus``; ``images`` of a step; ``sent`` (bytes, by strategy,
        and ``student``: DDP without distillation), ``held`` (bytes, by
        strategy) and ``macs`` of one GPU in a step.
    """
    student, necks = costs['trained'].values()
    trained = student + necks
    state = count_state(config.optim_wrapper.optimizer)
    batch_size = config.train_dataloader.batch_size
    others = FLOAT32 * (gpus - 1) / gpus
    share = FLOAT32 * trained / gpus
    teacher = FLOAT32 * costs['teacher']['parameters']
    return {
        'gpus': gpus,
        'images': gpus * batch_size,
        'sent': {
            'ddp': 2 * trained * others,
            'student': 2 * student * others,
            'fsdp': (3 * student + 2 * necks) * others,
        },
        'held': {
            'ddp': teacher + (2 + state) * FLOAT32 * trained,
            # DeepSpeed steps on a copy of its share of the weights.
            'zero2': teacher + FLOAT32 * trained + (2 + state) * share,
            'fsdp': teacher + (2 + state) * share,
        },
        'macs': batch_size * sum(costs['step_macs'].values()),
    }


def readable(number: float) -> str:
    """A count with a unit: ``'1.11 G'``."""
    for unit, size in (('G', 1e9), ('M', 1e6), ('k', 1e3)):
        if number >= size:
            return f'{number / size:.3g} {unit}'
    return f'{number:g}'


def describe(costs: dict) -> str:
    """What :func:`get_costs` found, as text."""
    rows = {'deployed': costs['deployed']}
    if 'teacher' in costs:
        for name, teacher in costs['teachers'].items():
            rows[f'{teacher_label(name)}, forward'] = teacher
        for name, entry in costs['entries'].items():
            rows[f'necks of {name!r}, forward'] = entry
    cells = [('', 'parameters', 'MACs/image')]
    for name, row in rows.items():
        cells.append(
            (name, *(readable(row[k]) for k in ('parameters', 'macs')))
        )
    height, width = costs['shape']
    lines = [aligned(cells), f'images of {height} x {width}']
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


def describe_scaling(costs: dict, scaling: list[dict]) -> str:
    """What :func:`get_scaling` found for several numbers of GPUs, as text."""
    step = sum(costs['step_macs'].values())
    teacher = costs['teacher']['macs'] / step
    student = costs['step_macs']['student'] / step
    trained = costs['trained']
    held = FLOAT32 * costs['teacher']['parameters']
    rows = [
        ('', *(f'{s["gpus"]} GPUs' for s in scaling)),
        ('images a step', *(str(s['images']) for s in scaling)),
    ]
    rows += [
        (label, *(f'{readable(s[group][key])}B' for s in scaling))
        for label, group, key in (
            ('a GPU sends, DDP or ZeRO', 'sent', 'ddp'),
            ('  the student alone', 'sent', 'student'),
            ('a GPU sends, FSDP', 'sent', 'fsdp'),
            ('a GPU holds, DDP', 'held', 'ddp'),
            ('a GPU holds, ZeRO-2', 'held', 'zero2'),
            ('a GPU holds, FSDP, at least', 'held', 'fsdp'),
        )
    ]
    per_byte = [readable(s['macs'] / s['sent']['ddp']) for s in scaling]
    rows.append(('MACs for a byte sent, DDP', *per_byte))
    return (
        f'Shares of the arithmetic: student {student:.0%}, teacher '
        f'{teacher:.0%}, necks {1 - student - teacher:.0%}.\n'
        f'Trained: {readable(trained["student"])} parameters of the '
        f'student, {readable(trained["necks"])} of necks. Teacher on '
        f'each GPU: {readable(held)}B.\n\n' + aligned(rows)
    )
