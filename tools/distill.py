r"""Write the config that distils a recipe, and start it if you like.

    python tools/distill.py STUDENT_CONFIG --teacher TEACHER_CONFIG \
        --checkpoint FILE [--method diffkd] [--out FILE] [--train]

The new config lies beside the student's recipe. What it taps and why, what it
costs, and three trial steps on the recipe's own data (on random images where
there are none) are printed first; if something does not fit, nothing is
written.
"""

import argparse
import os
import sys

from mmengine.config import Config, DictAction

from mmdiffkd.analysis.distill_config import (
    STEPS,
    build,
    compose,
    own_batches,
    set_input_size,
    target,
    text_of,
    trial,
    write,
)
from mmdiffkd.analysis.macs import costs_of, describe
from mmdiffkd.analysis.training import TOOLS
from mmdiffkd.models.distillers.presets import METHODS
from mmdiffkd.utils.freed_memory import keep_freed_memory


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        'config',
        metavar='STUDENT_CONFIG',
        help='the recipe that trains the student: a path, or package::name',
    )
    parser.add_argument(
        '--teacher',
        required=True,
        metavar='TEACHER_CONFIG',
        help='a path, or package::name',
    )
    parser.add_argument(
        '--checkpoint',
        required=True,
        metavar='FILE',
        help="the teacher's weights, a file or an https URL; None for a "
        'random teacher',
    )
    parser.add_argument(
        '--method',
        default='diffkd',
        help=f'a preset: {", ".join(METHODS)}. Defaults to %(default)s.',
    )
    parser.add_argument(
        '--distill',
        nargs='+',
        action=DictAction,
        default={},
        metavar='KEY=VALUE',
        help='change the preset: weight=0.5 for all entries, '
        'feature.weight=0.5, logits.at=head.fc, logits=None without it',
    )
    parser.add_argument(
        '--out',
        metavar='FILE',
        help='the config to write. Defaults to METHOD_RECIPE.py beside the '
        'recipe, or in the current folder if a package ships it.',
    )
    parser.add_argument(
        '--no-trial',
        action='store_true',
        help=f'leave out the {STEPS} trial steps',
    )
    parser.add_argument(
        '--train',
        nargs=argparse.REMAINDER,
        help='train; what follows are flags of tools/train.py',
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    out = target(args.config, args.method, args.out)
    distill = Config({'preset': args.method})
    distill.merge_from_dict(args.distill)
    checkpoint = None if args.checkpoint == 'None' else args.checkpoint
    config = compose(args.config, args.teacher, checkpoint, distill.to_dict())
    batches = own_batches(config)
    if batches is not None:
        set_input_size(config, next(batches))
    model = build(config)
    print(f'\n{describe(costs_of(model))}\n')
    if not args.no_trial:
        print(f'Trying {STEPS} steps; --no-trial leaves this out.', flush=True)
        print(f'{trial(model, config, batches)}\n')
    write(text_of(config, model.expansion, args.config, out), out)
    print(f'Written: {out}')
    command = [sys.executable, str(TOOLS / 'train.py'), str(out)]
    if args.train is not None:
        # This process, with all it holds, makes room for the training.
        os.execv(command[0], [*command, *args.train])
    print(f'To train: python tools/train.py {out}')


if __name__ == '__main__':
    keep_freed_memory()
    main()
