"""Digit scenes: real images for three tasks, without a download.

Handwritten digits are pasted, at random size, angle, colour and opacity, onto
random crops of two photographs; fragments of other digits lie beneath as
clutter. Digits and photographs come with scikit-learn (``load_digits`` and
``load_sample_images``).

No digit is on two sides: each split owns a range of scikit-learn's 1,797
digits (:data:`DIGITS`), and takes its clutter from the same range. The two
photographs are shared by the splits: a test scene may lie on a stretch of
photograph that a training scene has shown too, never with the same digits.

Every scene has a generator of its own, seeded with (seed, task, split,
index): it depends neither on the scenes before it nor on how many there are.
Pixels and files are the same on every run with the same numpy, Pillow and
scikit-learn.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from PIL import Image

VERSION = 1
MANIFEST = 'digit_scenes.json'
CLASSES = tuple(str(digit) for digit in range(10))
#: Colours (RGB) of label maps: background, then the ten digits.
PALETTE = (
    (40, 40, 40),
    (230, 25, 75),
    (60, 180, 75),
    (255, 225, 25),
    (67, 99, 216),
    (245, 130, 49),
    (145, 30, 180),
    (66, 212, 244),
    (240, 50, 230),
    (191, 239, 69),
    (250, 190, 212),
)
#: The digits, by their number in ``load_digits``, that each split draws from.
#: Scenes are seeded with the position of their split, so the order is fixed.
DIGITS = dict(train=range(1100), val=range(1100, 1300), test=range(1300, 1797))
#: How many scenes of each split are written by default.
SIZES = dict(
    cls=dict(train=12000, val=1000, test=2000),
    det=dict(train=3000, val=300, test=600),
    seg=dict(train=2000, val=200, test=300),
)
INK = 0.35  # from this coverage on, a pixel belongs to its digit


class Layout(NamedTuple):
    """What the scenes of one task look like; ranges include both ends.

    Args:
        height (int): Height of a scene in pixels.
        width (int): Width of a scene in pixels.
        digits (tuple[int, int]): Range of the number of digits.
        size (tuple[int, int]): Range of a digit's height before it is turned,
            in pixels.
        fragments (tuple[int, int]): Range of the number of fragments.
    """

    height: int
    width: int
    digits: tuple[int, int]
    size: tuple[int, int]
    fragments: tuple[int, int]


LAYOUTS = dict(
    cls=Layout(32, 32, (1, 1), (22, 28), (1, 2)),
    det=Layout(128, 128, (1, 6), (22, 52), (2, 5)),
    seg=Layout(96, 192, (2, 7), (22, 52), (2, 5)),
)


class Digit(NamedTuple):
    """One digit of a scene.

    Args:
        label (int): Which digit it is, 0 to 9.
        source (int): Its number in ``load_digits``.
        mask (numpy.ndarray): Where it can be seen, bool of shape (H, W).
        area (int): Its pixels, those that a later digit hides included.
    """

    label: int
    source: int
    mask: np.ndarray
    area: int

    @property
    def box(self) -> tuple[int, int, int, int]:
        """The tight box (x, y, width, height) around the mask, in pixels."""
        rows, columns = (
            np.flatnonzero(self.mask.any(axis)) for axis in (1, 0)
        )
        x, y = int(columns[0]), int(rows[0])
        return x, y, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1


class Scene(NamedTuple):
    """One scene.

    Args:
        image (numpy.ndarray): RGB, uint8 of shape (H, W, 3).
        digits (tuple[Digit, ...]): The digits, lowest first.
        clutter (tuple[int, ...]): Numbers in ``load_digits`` of the digits
            whose fragments lie beneath.
    """

    image: np.ndarray
    digits: tuple[Digit, ...]
    clutter: tuple[int, ...]

    @property
    def label_map(self) -> np.ndarray:
        """0 for background, digit + 1 elsewhere: uint8 of shape (H, W)."""
        labels = np.zeros(self.image.shape[:2], np.uint8)
        for digit in self.digits:
            labels[digit.mask] = digit.label + 1
        return labels


def draw_scene(task: str, split: str, index: int, seed: int = 0) -> Scene:
    """Draw one scene.

    Args:
        task (str): ``'cls'`` (one digit, 32 x 32), ``'det'`` (1 to 6 digits,
            128 x 128) or ``'seg'`` (2 to 7 digits, 96 x 192).
        split (str): ``'train'``, ``'val'`` or ``'test'``.
        index (int): The scene's number in its split.
        seed (int): Seed of the whole data set. Defaults to 0.

    Returns:
        Scene: The picture and what is known about it. Digits lie entirely
        inside the picture, and at least three quarters of each can be seen.

    Raises:
        ValueError: If there is no such split.
    """
    if split not in DIGITS:
        raise ValueError(f'split={split!r}: give one of {", ".join(DIGITS)}')
    rng = np.random.default_rng(
        [seed, list(LAYOUTS).index(task), list(DIGITS).index(split), index]
    )
    layout = LAYOUTS[task]
    canvas = _background(layout, rng)

    clutter = []
    for _ in range(rng.integers(*layout.fragments, endpoint=True)):
        source = int(rng.choice(DIGITS[split]))
        coverage = _coverage(_fragment(source, rng), layout.size, rng)
        y, x = _anywhere(coverage, layout, rng)
        _paint(canvas, _on_canvas(coverage, y, x, layout), rng)
        clutter.append(source)

    digits: list[Digit] = []
    for _ in range(rng.integers(*layout.digits, endpoint=True)):
        source = int(rng.choice(DIGITS[split]))
        coverage = _coverage(_digits()[0][source], layout.size, rng)
        placed = _place(coverage, digits, layout, rng)
        if placed is None:  # no room is left
            continue
        mask = placed >= INK
        digits = [d._replace(mask=d.mask & ~mask) for d in digits]
        label = int(_digits()[1][source])
        digits.append(Digit(label, source, mask, int(mask.sum())))
        _paint(canvas, placed, rng)

    image = np.clip(np.rint(canvas), 0, 255).astype(np.uint8)
    return Scene(image, tuple(digits), tuple(clutter))


@cache
def _digits() -> tuple[np.ndarray, np.ndarray]:
    """Coverage in [0, 1] of shape (1797, 8, 8), and the labels (1797,)."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    return digits.images / 16.0, digits.target


@cache
def _photographs() -> tuple[Image.Image, ...]:
    from sklearn.datasets import load_sample_images

    return tuple(map(Image.fromarray, load_sample_images().images))


def _background(layout: Layout, rng: Generator) -> np.ndarray:
    """A crop of a photograph, as large as the scene, float (H, W, 3)."""
    photograph = _photographs()[rng.integers(2)]
    largest = min(
        photograph.height / layout.height, photograph.width / layout.width, 4
    )
    zoom = rng.uniform(1, largest)
    height, width = zoom * layout.height, zoom * layout.width
    x = rng.uniform(0, photograph.width - width)
    y = rng.uniform(0, photograph.height - height)
    crop = photograph.resize(
        (layout.width, layout.height),
        Image.Resampling.BILINEAR,
        box=(x, y, x + width, y + height),
    )
    canvas = np.asarray(crop, np.float64)
    if rng.random() < 0.5:
        canvas = canvas[:, ::-1]
    return canvas * rng.uniform(0.3, 0.7)


def _fragment(source: int, rng: Generator) -> np.ndarray:
    """A digit of which 3 to 5 rows and 4 to 8 columns are kept, (8, 8)."""
    kept = np.zeros((8, 8))
    height, width = rng.integers(3, 6), rng.integers(4, 9)
    y, x = rng.integers(0, 9 - height), rng.integers(0, 9 - width)
    window = np.s_[y : y + height, x : x + width]
    kept[window] = _digits()[0][source][window]
    return kept


def _coverage(
    digit: np.ndarray, size: tuple[int, int], rng: Generator
) -> np.ndarray:
    """Resize and turn a digit; coverage in [0, 1] without empty borders."""
    height = rng.integers(*size, endpoint=True)
    width = max(8, round(height * rng.uniform(0.7, 1.1)))
    angle = rng.uniform(-25, 25)
    ink = Image.fromarray(np.rint(255 * np.pad(digit, 1)).astype(np.uint8))
    ink = ink.resize((int(width), int(height)), Image.Resampling.BICUBIC)
    ink = ink.rotate(angle, Image.Resampling.BICUBIC, expand=True)
    left, top, right, bottom = ink.getbbox() or (0, 0, *ink.size)
    coverage = np.asarray(ink.crop((left, top, right, bottom)), np.float64)
    return coverage / 255


def _anywhere(
    coverage: np.ndarray, layout: Layout, rng: Generator
) -> tuple[int, int]:
    """A place that may hang over the border by half."""
    height, width = coverage.shape
    y = rng.integers(-(height // 2), layout.height - height // 2)
    x = rng.integers(-(width // 2), layout.width - width // 2)
    return int(y), int(x)


def _on_canvas(
    coverage: np.ndarray, y: int, x: int, layout: Layout
) -> np.ndarray:
    """Coverage of the whole scene, (H, W)."""
    height, width = coverage.shape
    whole = np.zeros((layout.height, layout.width))
    top, left = max(y, 0), max(x, 0)
    part = coverage[top - y : layout.height - y, left - x : layout.width - x]
    whole[top : top + part.shape[0], left : left + part.shape[1]] = part
    return whole


def _place(
    coverage: np.ndarray,
    digits: list[Digit],
    layout: Layout,
    rng: Generator,
) -> np.ndarray | None:
    """Find a place inside the scene that hides no digit by more than 1/4."""
    height, width = coverage.shape
    for _ in range(20):
        y = int(rng.integers(0, layout.height - height + 1))
        x = int(rng.integers(0, layout.width - width + 1))
        placed = _on_canvas(coverage, y, x, layout)
        mask = placed >= INK
        if all((d.mask & ~mask).sum() >= 0.75 * d.area for d in digits):
            return placed
    return None


def _paint(canvas: np.ndarray, coverage: np.ndarray, rng: Generator) -> None:
    """Paint in one colour, lighter than the mean of what lies beneath."""
    beneath = canvas[coverage >= INK]
    beneath = beneath.mean(0) if len(beneath) else canvas.mean((0, 1))
    colour = np.minimum(beneath + rng.uniform(20, 150, 3), 255)
    opacity = rng.uniform(0.6, 1.0) * coverage[..., None]
    canvas += opacity * (colour - canvas)


def write_scenes(
    root: str | Path,
    task: str,
    sizes: dict[str, int] | None = None,
    seed: int = 0,
    track: Callable[[list], Iterable] = iter,
) -> None:
    """Write the scenes of one task to ``root/task``, in its usual layout.

    - cls: ``<split>/<class>/<number>.png``, for mmpretrain's CustomDataset.
    - det: ``<split>/<number>.png`` and
      ``annotations/instances_<split>.json``, for mmdet's CocoDataset.
    - seg: ``leftImg8bit/<split>/digits/*_leftImg8bit.png`` and
      ``gtFine/<split>/digits/*_gtFine_labelTrainIds.png``, the folders and
      suffixes of mmseg's CityscapesDataset. That class refuses other names
      than its own: with digits as class names, it is BaseSegDataset with
      these two suffixes that reads them.

    They are written to a folder beside it, which takes its name when
    everything is there: what stands under ``root/task`` is never half done.

    Args:
        root (str | Path): Folder of the data set.
        task (str): ``'cls'``, ``'det'`` or ``'seg'``.
        sizes (dict[str, int], optional): Number of scenes of each split.
            Defaults to ``SIZES[task]``.
        seed (int): Seed of the whole data set. Defaults to 0.
        track (Callable): Wraps the list of (split, index) that is worked
            through, to show progress. Defaults to ``iter``.

    Raises:
        FileExistsError: If ``root/task`` holds something else.
    """
    sizes = sizes or SIZES[task]
    folder = Path(root, task)
    if folder.exists() and not (folder / MANIFEST).is_file():
        raise FileExistsError(
            f'{folder} exists and has no {MANIFEST}, so it is no earlier '
            'version of this data set: move it away or choose another folder'
        )
    partial = Path(root, f'.{task}.partial')
    shutil.rmtree(partial, ignore_errors=True)
    todo = [(split, index) for split in sizes for index in range(sizes[split])]
    annotations = {split: [] for split in sizes}
    for split, index in track(todo):
        scene = draw_scene(task, split, index, seed)
        _WRITERS[task](partial, split, index, scene)
        annotations[split].append(scene.digits)
    if task == 'det':
        for split, scenes in annotations.items():
            _write_json(
                partial / f'annotations/instances_{split}.json', _coco(scenes)
            )
    manifest = _wanted(task, sizes, seed) | dict(sha256=_sha256(partial))
    _write_json(partial / MANIFEST, manifest)
    if folder.exists():
        shutil.rmtree(folder)
    partial.rename(folder)


def is_complete(
    root: str | Path,
    task: str,
    sizes: dict[str, int] | None = None,
    seed: int = 0,
) -> bool:
    """Whether ``root/task`` holds exactly these scenes, file by file.

    Args:
        root (str | Path): Folder of the data set.
        task (str): ``'cls'``, ``'det'`` or ``'seg'``.
        sizes (dict[str, int], optional): Number of scenes of each split.
            Defaults to ``SIZES[task]``.
        seed (int): Seed of the whole data set. Defaults to 0.
    """
    folder = Path(root, task)
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError):
        return False
    wanted = _wanted(task, sizes or SIZES[task], seed)
    return manifest == wanted | dict(sha256=_sha256(folder))


def _wanted(task: str, sizes: dict[str, int], seed: int) -> dict:
    return dict(version=VERSION, task=task, seed=seed, sizes=sizes)


def _sha256(folder: Path) -> str:
    """Of names and contents of all files but the manifest."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob('*') if p.is_file()):
        if path.name != MANIFEST:
            digest.update(path.relative_to(folder).as_posix().encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _write_json(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + '\n')


def _write_png(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def _write_cls(root: Path, split: str, index: int, scene: Scene) -> None:
    label = CLASSES[scene.digits[0].label]
    _write_png(root / split / label / f'{index:06}.png', scene.image)


def _write_det(root: Path, split: str, index: int, scene: Scene) -> None:
    _write_png(root / split / f'{index:06}.png', scene.image)


def _write_seg(root: Path, split: str, index: int, scene: Scene) -> None:
    name = f'{split}/digits/digits_{index:06}_000000'
    _write_png(root / f'leftImg8bit/{name}_leftImg8bit.png', scene.image)
    _write_png(
        root / f'gtFine/{name}_gtFine_labelTrainIds.png', scene.label_map
    )


_WRITERS = dict(cls=_write_cls, det=_write_det, seg=_write_seg)


def _coco(scenes: list[tuple[Digit, ...]]) -> dict:
    """Annotations in COCO's format; category ids are 1 to 10."""
    layout = LAYOUTS['det']
    placed = [(i, digit) for i, scene in enumerate(scenes) for digit in scene]
    return dict(
        info=dict(description='digit scenes', version=str(VERSION)),
        images=[
            dict(
                id=i,
                file_name=f'{i:06}.png',
                height=layout.height,
                width=layout.width,
            )
            for i in range(len(scenes))
        ],
        annotations=[
            dict(
                id=number,
                image_id=i,
                category_id=digit.label + 1,
                bbox=list(digit.box),
                area=int(digit.mask.sum()),
                iscrowd=0,
            )
            for number, (i, digit) in enumerate(placed, 1)
        ],
        categories=[
            dict(id=label, name=name) for label, name in enumerate(CLASSES, 1)
        ],
    )
