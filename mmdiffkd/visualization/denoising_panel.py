"""The student's feature on its way through the denoiser, as a picture."""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from .side_by_side import pixels


def strength(feature: Tensor) -> Tensor:
    """How strong a feature map is at each position.

    Args:
        feature (Tensor): Maps of shape (B, C, H, W).

    Returns:
        Tensor: Root mean square over channels, float32 of shape (B, H, W).
    """
    return feature.detach().float().square().mean(dim=1).sqrt()


def attention(feature: Tensor, temperature: float = 0.5) -> Tensor:
    """Where a feature map puts its weight: Eq. (10) of DiffKD.

    ``V = H * W * softmax(channel mean / temperature)``, the softmax taken
    over all positions of a map. A map without any structure is 1 everywhere;
    4 means four times the average weight.

    Args:
        feature (Tensor): Maps of shape (B, C, H, W).
        temperature (float): Softens (above 0.5) or sharpens the picture.
            Defaults to 0.5, the paper's value.

    Returns:
        Tensor: float32 of shape (B, H, W); the mean of each map is 1.

    Source: Huang et al., "Knowledge Diffusion for Distillation" (2023),
    Eq. (10), for pictures only.
    """
    if temperature <= 0:
        raise ValueError(f'temperature={temperature} must be above 0')
    size = feature.shape[-2:]
    mean = feature.detach().float().mean(dim=1).flatten(1)
    weight = torch.softmax(mean / temperature, dim=1) * mean.shape[1]
    return weight.unflatten(1, size)


HEATS = {
    'strength': (strength, 'root mean square over channels'),
    'attention': (attention, 'weight of a position, 1 is the average'),
}


def denoising_panel(
    images: Sequence[np.ndarray],
    trajectory: Sequence[tuple[str, Tensor]],
    heat: str = 'strength',
    title: str | None = None,
    dpi: int = 100,
) -> np.ndarray:
    """Draw how the denoiser turns the student's feature into the teacher's.

    One row an image: the image, then one heat map for each stage of the
    trajectory, the teacher's target last. The heat maps of a row share one
    colour scale, from 0 to the row's largest value: scaled one by one, a
    weak map would look like a strong one, and noise like structure. Under
    each map stands the cosine similarity of the whole feature, all channels,
    with the target.

    :func:`strength` is the default, because a latent is signed, so that the
    mean over channels, which the paper draws, says little about it.
    :func:`attention`, the paper's choice, is for features behind a ReLU.

    Nothing here touches matplotlib's global state or a random generator.

    Args:
        images (Sequence[np.ndarray]): N pictures, uint8 RGB, (H, W, 3).
        trajectory (Sequence[tuple[str, Tensor]]): Captions and maps of shape
            (N, C, h, w) in order, as ``DiffKDNeck.trajectory`` returns them;
            the last pair is the teacher's target.
        heat (str): What the maps show, ``'strength'`` or ``'attention'``.
            Defaults to ``'strength'``.
        title (str, optional): A line above everything. Defaults to None.
        dpi (int): Pixels an inch; a heat map is about 1.2 inches wide.
            Defaults to 100.

    Returns:
        np.ndarray: The picture, uint8 RGB, (H, W, 3).

    Raises:
        ValueError: If images and maps are not of these shapes, or there is
            no such ``heat``.
    """
    _check(images, trajectory)
    if heat not in HEATS:
        raise ValueError(f'heat={heat!r} is not one of {list(HEATS)}')
    to_heat, meaning = HEATS[heat]
    heats = [to_heat(value).cpu() for _, value in trajectory]
    target = trajectory[-1][1]
    cosines = [_cosine(value, target).cpu() for _, value in trajectory]

    num_rows, num_columns = len(images), len(trajectory) + 1
    # Inches: a cell with its gap, and room for captions and colour bars.
    cell, head, left, right, foot = 1.25, 0.45, 0.1, 0.75, 0.3
    head += 0.3 if title else 0.0
    side = cell - 0.09
    # A map has the image's proportions.
    tall = side * images[0].shape[0] / images[0].shape[1]
    pitch = tall + 0.29
    width = left + cell * num_columns + right
    height = head + pitch * num_rows + foot
    figure = Figure(figsize=(width, height), dpi=dpi, facecolor='white')

    def axes(row: int, column: int, box_width: float = side):
        bottom = height - head - row * pitch - tall
        box = np.array([left + column * cell, bottom, box_width, tall])
        return figure.add_axes(box / [width, height, width, height])

    for row, image in enumerate(images):
        picture = axes(row, 0)
        picture.imshow(image, interpolation='nearest')
        _bare(picture)
        if row == 0:
            picture.set_title('image', fontsize=10)
        scale = Normalize(0.0, max(float(h[row].max()) for h in heats))
        for column, (caption, _) in enumerate(trajectory, start=1):
            picture = axes(row, column)
            drawn = picture.imshow(
                heats[column - 1][row].numpy(),
                cmap='viridis',
                norm=scale,
                interpolation='nearest',
            )
            _bare(picture)
            if row == 0:
                picture.set_title(caption, fontsize=10)
            if column < num_columns - 1:
                picture.set_xlabel(
                    f'cos {float(cosines[column - 1][row]):.2f}',
                    fontsize=9,
                    labelpad=2,
                )
        bar = figure.colorbar(drawn, cax=axes(row, num_columns, 0.1))
        bar.ax.tick_params(labelsize=8, length=2)
        bar.outline.set_linewidth(0.5)
    figure.text(
        left / width,
        0.09 / height,
        f'Colour: {meaning}, one scale a row.  '
        "cos: cosine similarity of all channels with the teacher's target.",
        fontsize=8,
        color='0.3',
    )
    if title:
        figure.text(
            left / width, 1 - 0.2 / height, title, fontsize=11, va='center'
        )
    return pixels(figure)


def _check(images, trajectory) -> None:
    """Refuse what cannot be drawn, by name."""
    if not trajectory:
        raise ValueError('trajectory is empty: there is nothing to draw')
    for caption, value in trajectory:
        if value.ndim != 4 or len(value) != len(images):
            raise ValueError(
                f'The stage {caption!r} of the trajectory has the shape '
                f'{tuple(value.shape)}; {len(images)} images need maps of '
                f'shape ({len(images)}, C, H, W).'
            )
    for image in images:
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(
                f'An image has the type {image.dtype} and the shape '
                f'{image.shape}; expected uint8 RGB of shape (H, W, 3).'
            )


def _cosine(value: Tensor, target: Tensor) -> Tensor:
    """Cosine similarity of whole features, one number an image, (B,)."""
    return F.cosine_similarity(
        value.detach().float().flatten(1),
        target.detach().float().flatten(1),
        dim=1,
    )


def _bare(axes) -> None:
    """Take ticks off an axes and thin its frame."""
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_linewidth(0.5)
