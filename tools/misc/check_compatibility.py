r"""See whether stock configs train under a distiller.

    python tools/misc/check_compatibility.py NAME... [--at TAP...]
    python tools/misc/check_compatibility.py tools/misc/compatibility.txt

A NAME is a config, 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py' or a path;
one that ends in .txt is a list. Each is wrapped in the lines of
docs/configuration.md, DiffKD at one tap, the teacher of the same architecture
and random on purpose. Then, in a process of its own:

1. two training iterations by the real runner, with the recipe's own pipeline,
   optimizer, schedule, hooks and evaluator;
2. the checkpoint, loaded strictly into the plain model;
3. a prediction by that.

The data is generated, in the layouts of ImageNet, COCO, Cityscapes and
ADE20K, and nothing is downloaded: pretrained weights are stripped. Batches
have two images, and lengths in the pipelines of mmdet are a quarter of the
recipe's, in those of mmseg an eighth. No network is made smaller.

If a config fails, the same is tried without the distiller: what fails there
too is the recipe's own (or that of images so small).

A list has a name a line, then taps and shrink=N, where the default does not
fit, then, behind a bar, what the reason of an expected failure contains:

    mmdet::some/recipe.py  backbone[-1] neck[0:3] shrink=2  | has no gradient

The exit status is 0 if every config works, or fails for the reason that the
list gives.
"""

import argparse
import sys
from pathlib import Path

from mmdiffkd.analysis.compatibility import (
    LONGEST,
    Line,
    check,
    import_packages,
    page,
    read_list,
    summary,
    table,
)
from mmdiffkd.utils.safe_loader import guard_checkpoints


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='See whether stock configs train under a distiller.'
    )
    parser.add_argument(
        'names', nargs='+', metavar='NAME', help='a config, or a list (.txt)'
    )
    parser.add_argument(
        '--at',
        nargs='+',
        default=[],
        metavar='TAP',
        help='where to distil the configs named here. Defaults to the '
        'pyramid of a detector, the class maps of a segmenter, or the last '
        'output of the backbone.',
    )
    parser.add_argument(
        '--work-dir',
        type=Path,
        default=Path('work_dirs/compatibility'),
        help='for data and logs. Defaults to %(default)s.',
    )
    parser.add_argument(
        '--out', type=Path, help='a document to write, docs/compatibility.md'
    )
    return parser.parse_args()


def lines_of(args: argparse.Namespace) -> list[Line]:
    lines = []
    for name in args.names:
        if name.endswith('.txt'):
            lines += read_list(Path(name).read_text())
        else:
            if '::' not in name:
                name = str(Path(name).resolve())
            lines.append(Line(name, tuple(args.at)))
    return lines


def main() -> None:
    guard_checkpoints()
    args = parse_args()
    lines = lines_of(args)
    import_packages(lines)
    results = []
    for line in lines:
        result = check(line, args.work_dir)
        results.append(result)
        outcome = result.outcome[:LONGEST]
        print(f'{result.seconds:4.0f} s  {line.name}  {outcome}', flush=True)
    print(f'\n{table(results)}\n{summary(results)}')
    if args.out:
        names = ' '.join(args.names)
        tool = 'python tools/misc/check_compatibility.py'
        args.out.write_text(page(results, f'{tool} {names} --out {args.out}'))
    sys.exit(not all(result.expected for result in results))


if __name__ == '__main__':
    main()
