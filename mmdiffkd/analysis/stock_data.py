"""A few generated pictures in the layouts of stock data sets.

ImageNet, COCO, Cityscapes and ADE20K, so that stock configs run without any
download.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

#: Pictures of a split.
PICTURES = 2
#: A class and x1, y1, x2, y2.
Box = tuple[int, list[int]]


def write_data(root: Path) -> None:
    """Write a few pictures in the layouts of four data sets.

    Args:
        root (Path): The folder that recipes call ``data``; what is there
            stays.
    """
    if root.exists():
        return
    partial = root.with_name(f'.{root.name}.partial')
    for number, (split, short) in enumerate(
        [('train', 'training'), ('val', 'validation')]
    ):
        random = np.random.default_rng(number)
        _write_imagenet(partial / 'imagenet', split, random)
        _write_coco(partial / 'coco', split, random)
        for index in range(PICTURES):
            scene, boxes = _scene((512, 256), 19, random)
            place = partial / 'cityscapes'
            stem = f'{split}/generated/{index}'
            _save(scene, place / f'leftImg8bit/{stem}_leftImg8bit.png')
            labels = _label_map(scene.size, boxes)
            _save(labels, place / f'gtFine/{stem}_gtFine_labelTrainIds.png')
            scene, boxes = _scene((200, 150), 151, random)
            place = partial / 'ade/ADEChallengeData2016'
            _save(scene, place / f'images/{short}/{index}.jpg')
            labels = _label_map(scene.size, boxes)
            _save(labels, place / f'annotations/{short}/{index}.png')
    partial.rename(root)


def _scene(
    size: tuple[int, int], classes: int, random: np.random.Generator
) -> tuple[Image.Image, list[Box]]:
    """Noise with a few rectangles."""
    pixels = random.integers(0, 256, (*size[::-1], 3), 'uint8')
    scene = Image.fromarray(pixels)
    draw = ImageDraw.Draw(scene)
    boxes = []
    for _ in range(4):
        corner = [int(random.uniform(0, 0.5) * side) for side in size]
        extent = [int(random.uniform(0.25, 0.5) * side) for side in size]
        box = [*corner, corner[0] + extent[0], corner[1] + extent[1]]
        draw.rectangle(box, tuple(random.integers(0, 256, 3).tolist()))
        boxes.append((int(random.integers(classes)), box))
    return scene, boxes


def _label_map(size: tuple[int, int], boxes: Sequence[Box]) -> Image.Image:
    labels = Image.new('L', size)
    for label, box in boxes:
        ImageDraw.Draw(labels).rectangle(box, label)
    return labels


def _save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def _write_text(text: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _write_imagenet(
    root: Path, split: str, random: np.random.Generator
) -> None:
    lines = []
    for index in range(PICTURES):
        scene, boxes = _scene((280, 260), 1000, random)
        _save(scene, root / split / f'{index}.jpg')
        lines.append(f'{index}.jpg {boxes[0][0]}\n')
    _write_text(''.join(lines), root / f'meta/{split}.txt')


def _write_coco(root: Path, split: str, random: np.random.Generator) -> None:
    from mmdet.datasets import CocoDataset

    names = CocoDataset.METAINFO['classes']
    images, annotations = [], []
    for index in range(PICTURES):
        scene, boxes = _scene((240, 180), len(names), random)
        file = f'{index}.jpg'
        _save(scene, root / f'{split}2017' / file)
        width, height = scene.size
        images.append(
            {'id': index, 'file_name': file, 'width': width, 'height': height}
        )
        for label, (left, top, right, bottom) in boxes:
            outline = [left, top, right, top, right, bottom, left, bottom]
            annotations.append(
                {
                    'id': len(annotations) + 1,
                    'image_id': index,
                    'category_id': label,
                    'bbox': [left, top, right - left, bottom - top],
                    'area': (right - left) * (bottom - top),
                    'segmentation': [outline],
                    'iscrowd': 0,
                }
            )
    content = {
        'images': images,
        'annotations': annotations,
        'categories': [{'id': i, 'name': n} for i, n in enumerate(names)],
    }
    file = root / f'annotations/instances_{split}2017.json'
    _write_text(json.dumps(content), file)
