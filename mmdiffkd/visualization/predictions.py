"""What networks predict for a few images, side by side."""

import copy
from collections.abc import Mapping, Sequence

import numpy as np
from mmengine.structures import BaseDataElement, PixelData
from mmengine.visualization import Visualizer

from .side_by_side import side_by_side


def image_of(sample: Mapping) -> np.ndarray:
    """The picture of a sample.

    Args:
        sample (Mapping): What a data set gives; ``inputs`` is a tensor of
            blue, green and red, uint8, (3, H, W).

    Returns:
        np.ndarray: uint8 RGB, (H, W, 3).
    """
    return sample['inputs'].numpy()[::-1].transpose(1, 2, 0)


def enlarge(sample: BaseDataElement, factor: int) -> BaseDataElement:
    """Fit boxes and label maps of a sample to an enlarged image.

    Args:
        sample (BaseDataElement): Annotations or predictions. Is left as it
            is.
        factor (int): By what the image is enlarged.

    Returns:
        BaseDataElement: An enlarged copy.
    """
    sample = copy.deepcopy(sample)
    for name in ('gt_instances', 'pred_instances'):
        if name in sample:
            boxes = sample.get(name).bboxes
            sample.get(name).bboxes = getattr(boxes, 'tensor', boxes) * factor
    for name in ('gt_sem_seg', 'pred_sem_seg'):
        if name in sample:
            labels = sample.get(name).data.repeat_interleave(factor, 1)
            labels = labels.repeat_interleave(factor, 2)
            sample.set_data({name: PixelData(data=labels)})
    return sample


def predictions_panel(
    visualizer: Visualizer,
    samples: Sequence[Mapping],
    columns: Mapping[str, Sequence[BaseDataElement] | None],
    enlarged: int = 1,
    legend: Sequence[tuple[str, Sequence[int]]] = (),
    **options,
) -> np.ndarray:
    """Draw annotations and predictions: a row an image, a column a network.

    Args:
        visualizer (Visualizer): That of the package, which draws them.
        samples (Sequence[Mapping]): N samples, as the data set gives them.
        columns (Mapping[str, Sequence[BaseDataElement] | None]): Caption to
            N predictions, or to None for the annotations.
        enlarged (int): By what images are enlarged before. Defaults to 1.
        legend (Sequence[tuple[str, Sequence[int]]]): See
            :func:`~mmdiffkd.visualization.side_by_side`. Defaults to (),
            none.
        **options: For ``visualizer.add_datasample``.

    Returns:
        np.ndarray: The picture, uint8 RGB, (H, W, 3).
    """

    def draw(sample: Mapping, found: BaseDataElement | None) -> np.ndarray:
        image = image_of(sample).repeat(enlarged, 0).repeat(enlarged, 1)
        shown = enlarge(found or sample['data_samples'], enlarged)
        visualizer.add_datasample(
            '',
            np.ascontiguousarray(image),
            shown,
            draw_gt=found is None,
            draw_pred=found is not None,
            **options,
        )
        return visualizer.get_image()

    rows = [
        [draw(sample, found and found[i]) for found in columns.values()]
        for i, sample in enumerate(samples)
    ]
    return side_by_side(rows, list(columns), legend=legend)
