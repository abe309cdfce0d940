"""Pictures of predictions, as data URIs."""

import base64
import colorsys
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageOps
from torch import Tensor

from mmdiffkd.visualization import image_of

#: The longest side of a picture in pixels.
LONGEST = 320


def as_uri(picture: np.ndarray | Image.Image) -> str:
    """A picture, uint8 RGB, as a data URI."""
    if isinstance(picture, np.ndarray):
        picture = Image.fromarray(np.ascontiguousarray(picture))
    file = io.BytesIO()
    # Small pictures have few colours, or are looked at pixel by pixel.
    kind = 'PNG' if max(picture.size) < LONGEST else 'JPEG'
    picture.save(file, kind, quality=85, optimize=True)
    text = base64.b64encode(file.getvalue()).decode()
    return f'data:image/{kind.lower()};base64,{text}'


def colour_of(index: int) -> tuple[int, int, int]:
    """A colour for a class; neighbours differ."""
    hue = index * 0.618 % 1
    return tuple(round(255 * v) for v in colorsys.hsv_to_rgb(hue, 0.85, 0.95))


def draw(
    package: str,
    dataset: object,
    classes: Sequence[str],
    index: int,
    answers: Mapping[str, object],
) -> dict:
    """An image, and what the annotation and the networks say of it.

    Args:
        package (str): The package of the recipe.
        dataset (Dataset): The data.
        classes (Sequence[str]): The names of the classes.
        index (int): The image.
        answers (Mapping[str, object]): Predictions as the score of the task
            gives them, by who says so.

    Returns:
        dict: ``name`` of the image; ``pictures`` (a list of ``caption`` and
        ``picture``), ``answers`` (a list of ``who`` and ``text``) and
        ``legend`` (a list of ``name`` and ``colour``).
    """
    info = dataset.get_data_info(index)
    path = info.get('img_path')
    drawn = dict(
        name=Path(path).name if path else f'image {index}',
        answers=[],
    )
    if package == 'mmpretrain':
        pictures = {'': _fit(Image.fromarray(image_of(dataset[index]).copy()))}
        drawn['answers'] = [
            dict(who=who, text=_class_text(classes, answer))
            for who, answer in answers.items()
        ]
        seen = set()
    elif package == 'mmdet':
        image = ImageOps.exif_transpose(Image.open(path)).convert('RGB')
        pictures = {who: _boxes(image, *a) for who, a in answers.items()}
        seen = {int(i) for _, labels in answers.values() for i in labels}
    else:
        image = Image.fromarray(image_of(dataset[index]).copy())
        pictures = {who: _labels(image, a) for who, a in answers.items()}
        seen = {int(i) for a in answers.values() for i in a.unique()}
    drawn['pictures'] = [
        dict(caption=who, picture=as_uri(picture))
        for who, picture in pictures.items()
    ]
    drawn['legend'] = [
        dict(name=classes[i], colour='#' + bytes(colour_of(i)).hex())
        for i in sorted(seen)
        if i < len(classes)
    ]
    return drawn


def _class_text(classes: Sequence[str], answer: int | Tensor) -> str:
    """The annotated class, or the predicted one with its score."""
    if isinstance(answer, int):
        return classes[answer]
    score, label = answer.max(dim=0)
    return f'{classes[label]} ({100 * score:.0f} %)'


def _fit(image: Image.Image) -> Image.Image:
    scale = LONGEST / max(image.size)
    if scale >= 1:
        return image
    return image.resize([max(1, round(side * scale)) for side in image.size])


def _boxes(image: Image.Image, boxes: Tensor, labels: Tensor) -> Image.Image:
    scale = min(LONGEST / max(image.size), 1)
    shown = _fit(image).copy()
    pen = ImageDraw.Draw(shown)
    for box, label in zip(boxes.tolist(), labels.tolist()):
        corners = [value * scale for value in box]
        # A box may be turned inside out by a network.
        x, y = sorted(corners[::2]), sorted(corners[1::2])
        pen.rectangle(
            (x[0], y[0], x[1], y[1]), outline=colour_of(label), width=2
        )
    return shown


def _labels(image: Image.Image, labels: Tensor) -> Image.Image:
    labels = labels.numpy()
    tints = np.zeros((*labels.shape, 3), np.uint8)
    for label in np.unique(labels):
        tints[labels == label] = colour_of(int(label))
    image = image.resize(labels.shape[::-1])
    return _fit(Image.blend(image, Image.fromarray(tints), 0.55))
