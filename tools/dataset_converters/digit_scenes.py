"""Write the digit scenes, the embedded data set of real images."""

import argparse
from pathlib import Path

import numpy as np
from mmengine.utils import track_iter_progress
from PIL import Image, ImageDraw

from mmdiffkd.datasets import digit_scenes


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Write the digit scenes: handwritten digits on '
        'photographs, for classification (cls), detection (det) and '
        'segmentation (seg). Nothing is downloaded. Tasks that are complete '
        'already are left as they are.'
    )
    parser.add_argument(
        '--out', default='data/digit_scenes', help='default: %(default)s'
    )
    parser.add_argument(
        '--tasks',
        nargs='+',
        choices=list(digit_scenes.LAYOUTS),
        default=list(digit_scenes.LAYOUTS),
        help='default: all',
    )
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument(
        '--sizes',
        nargs=3,
        type=int,
        metavar=tuple(digit_scenes.DIGITS),
        help='scenes of each split, the same for all tasks; default: '
        + '; '.join(
            f'{task} {" ".join(map(str, sizes.values()))}'
            for task, sizes in digit_scenes.SIZES.items()
        ),
    )
    parser.add_argument(
        '--force', action='store_true', help='write complete tasks again'
    )
    parser.add_argument(
        '--preview',
        metavar='FILE',
        help='write a contact sheet of training scenes to this picture '
        'instead of the data set',
    )
    return parser.parse_args()


def contact_sheet(seed: int) -> Image.Image:
    """Classification (twice the size), detection and segmentation scenes."""

    def scenes(task: str, number: int) -> list[digit_scenes.Scene]:
        return [
            digit_scenes.draw_scene(task, 'train', index, seed)
            for index in range(number)
        ]

    def boxed(scene: digit_scenes.Scene) -> np.ndarray:
        image = Image.fromarray(scene.image)
        for x, y, width, height in (digit.box for digit in scene.digits):
            ImageDraw.Draw(image).rectangle(
                (x, y, x + width - 1, y + height - 1), outline='yellow'
            )
        return np.asarray(image)

    palette = np.array(digit_scenes.PALETTE, np.uint8)
    cls = [s.image.repeat(2, 0).repeat(2, 1) for s in scenes('cls', 36)]
    det = [boxed(s) for s in scenes('det', 6)]
    seg = [
        x for s in scenes('seg', 2) for x in (s.image, palette[s.label_map])
    ]
    rows = (cls[:12], cls[12:24], cls[24:], det, seg)
    return Image.fromarray(np.vstack([np.hstack(row) for row in rows]))


def main() -> None:
    args = parse_args()
    if args.preview:
        Path(args.preview).parent.mkdir(parents=True, exist_ok=True)
        contact_sheet(args.seed).save(args.preview, optimize=True)
        print(f'Contact sheet: {args.preview}')
        return
    for task in args.tasks:
        sizes = digit_scenes.SIZES[task]
        if args.sizes:
            sizes = dict(zip(sizes, args.sizes))
        folder = Path(args.out, task)
        if not args.force and digit_scenes.is_complete(
            args.out, task, sizes, args.seed
        ):
            print(f'{folder} is complete')
            continue
        if any(folder.rglob('tuning')):
            print(
                f'{folder} is from an earlier version, in which val was '
                'called tuning. It is written again.'
            )
        print(f'Writing {sum(sizes.values())} scenes to {folder}')
        digit_scenes.write_scenes(
            args.out, task, sizes, args.seed, track=track_iter_progress
        )
        print()
    for task in args.tasks:
        print(f'{task}: {Path(args.out, task).resolve()}')


if __name__ == '__main__':
    main()
