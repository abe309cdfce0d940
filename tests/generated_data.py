"""Images that the tests generate, in the layouts of real data sets."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image


def write_class_folders(
    root: Path,
    splits: Sequence[str] = ('train', 'val'),
    classes: Sequence[str] = ('first', 'second'),
    images_per_class: int = 2,
    size: tuple[int, int] = (48, 40),
) -> Path:
    """Write noise images in one folder a class, as ImageNet has them.

    Args:
        root (Path): Folder to write to.
        splits (Sequence[str]): Its sub-folders. Defaults to
            ('train', 'val').
        classes (Sequence[str]): The folders in each of them. Defaults to
            ('first', 'second').
        images_per_class (int): Images in each of those. Defaults to 2.
        size (tuple[int, int]): Width and height. Defaults to (48, 40).

    Returns:
        Path: ``root``.
    """
    generator = np.random.default_rng(0)
    for split in splits:
        for name in classes:
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(images_per_class):
                pixels = generator.integers(0, 256, (*size[::-1], 3), 'uint8')
                Image.fromarray(pixels).save(folder / f'{i}.png')
    return root
