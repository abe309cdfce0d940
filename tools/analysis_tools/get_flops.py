"""What a model costs at deployment, and what distillation adds to training.

    python tools/analysis_tools/get_flops.py CONFIG [--shape H W] [--json] \
        [--gpus N ...]

CONFIG is a plain model's or a distiller's; no weights and no data are read.
MACs are multiply-adds of convolutions and matrix products for one image, each
counted once ("FLOPs" in most tables of models); normalisation, activations
and the distance itself are left out.

A training step is estimated from forward passes: three for what is trained
(forward, and twice that for the gradients of inputs and weights), one for the
teacher, which gets no gradient.

With --gpus, also what each of so many GPUs sends and holds in a step, with
the config's batch size and optimizer, counted in float32, in which automatic
mixed precision keeps weights and gradients too: docs/scaling.md.
"""

import argparse
import contextlib
import json
import sys

from mmdiffkd.analysis.command_line import config_parser, read_config
from mmdiffkd.analysis.macs import (
    describe,
    describe_scaling,
    get_costs,
    get_scaling,
)


def parse_args() -> argparse.Namespace:
    parser = config_parser(__doc__)
    parser.add_argument(
        '--shape',
        type=int,
        nargs=2,
        metavar=('H', 'W'),
        help="the image's size; default: that of the dry run before training",
    )
    parser.add_argument(
        '--gpus',
        type=int,
        nargs='+',
        default=[],
        metavar='N',
        help='what each of so many GPUs sends and holds',
    )
    parser.add_argument('--json', action='store_true', help='print JSON')
    args = parser.parse_args()
    if min(args.gpus, default=2) < 2:
        parser.error('--gpus takes numbers of 2 or more')
    return args


def main() -> None:
    args = parse_args()
    # What building a model prints stays out of the JSON.
    with contextlib.redirect_stdout(sys.stderr):
        config = read_config(args)
        costs = get_costs(config, args.shape)
        if args.gpus and 'trained' not in costs:
            sys.exit('--gpus is for a config with a distiller')
        scaling = [get_scaling(config, costs, gpus) for gpus in args.gpus]
    if args.json:
        more = {'scaling': scaling} if scaling else {}
        print(json.dumps({**costs, **more}, indent=1))
        return
    print(describe(costs))
    if scaling:
        print(f'\n{describe_scaling(costs, scaling)}')


if __name__ == '__main__':
    main()
