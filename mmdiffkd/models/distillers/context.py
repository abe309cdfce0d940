"""What a step supplies to necks and losses, by an argument's name."""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn

from .rois import Sampled

#: What models predict, by the base class that their package gives them.
_TASKS = {
    'BaseClassifier': 'classification',
    'BaseDetector': 'detection',
    'BaseRetriever': 'retrieval',
    'BaseSegmentor': 'segmentation',
    'BaseSelfSupervisor': 'self-supervised learning',
}
_INTEGERS = torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64


def task_of(network: nn.Module) -> str | None:
    """What a model predicts; None if it derives from no package's base."""
    names = (cls.__name__ for cls in type(network).__mro__)
    return next((_TASKS[name] for name in names if name in _TASKS), None)


def batch_supply(
    inputs: Tensor, data_samples: list | Tensor | None
) -> dict[str, Callable[[], object]]:
    """What can be supplied from a batch, each worked out when asked for.

    Args:
        inputs (Tensor): Normalised images (B, C, H, W).
        data_samples (list or Tensor, optional): Their annotations, or their
            classes, integers (B,).

    Returns:
        dict[str, Callable]: ``gt_labels`` (B,), ``sample_idx`` (B,),
        ``gt_bboxes`` (B tensors (n, 4), x1 y1 x2 y2 in pixels),
        ``img_shape`` (B pairs, the images' height and width without
        padding), ``batch_input_shape`` (height and width with padding).
    """

    def samples() -> list:
        return _check_count(data_samples, len(inputs))

    return {
        'gt_labels': lambda: (
            data_samples
            if _are_classes(data_samples, len(inputs))
            else _gt_labels(samples())
        ),
        'sample_idx': lambda: _sample_idx(samples(), inputs.device),
        'gt_bboxes': lambda: _gt_bboxes(samples()),
        'img_shape': lambda: [
            tuple(_meta(sample, 'img_shape')[:2]) for sample in samples()
        ],
        'batch_input_shape': lambda: tuple(inputs.shape[-2:]),
    }


def meta_supply(
    batch_size: int,
    image: tuple[int, int],
    head: nn.Module | None = None,
    logits: torch.Size | None = None,
) -> dict[str, Callable[[], object]]:
    """What a step supplies, as meta tensors, to try necks before training.

    Args:
        batch_size (int): B, also of the boxes at a tap in a RoI head.
        image (tuple[int, int]): Height and width of the images.
        head (nn.Module, optional): The teacher's head. Defaults to None.
        logits (torch.Size, optional): The shape of what it returns. Defaults
            to None.
    """

    def integers() -> Tensor:
        return torch.zeros(batch_size, dtype=torch.long, device='meta')

    supply = {
        'gt_labels': integers,
        'sample_idx': integers,
        'roi_labels': integers,
        'gt_bboxes': lambda: [torch.zeros(1, 4, device='meta')] * batch_size,
        'img_shape': lambda: [tuple(image)] * batch_size,
        'batch_input_shape': lambda: tuple(image),
    }
    if head is not None:
        on_meta = deepcopy(head).to('meta')
        supply['teacher_head'] = lambda: on_meta
        supply['teacher_logits'] = lambda: torch.zeros(
            batch_size, *logits[1:], device='meta'
        )
    return supply


def teacher_supply(
    network: nn.Module, head: str | None, tensors: Mapping[str, list[Tensor]]
) -> dict[str, Callable[[], object]]:
    """The teacher's head and its logits, where an entry names a head.

    Args:
        network (nn.Module): The teacher's network.
        head (str, optional): The path of the head.
        tensors (Mapping[str, list[Tensor]]): What the teacher's taps yield.
    """
    return {
        'teacher_head': lambda: network.get_submodule(head),
        'teacher_logits': lambda: tensors[head][0],
    }


def roi_supply(
    box_heads: tuple[str, str] | None, sampled: Mapping[str, Sampled]
) -> dict[str, Callable[[], object]]:
    """The classes of the boxes that the student's RoI head sampled.

    Args:
        box_heads (tuple[str, str], optional): The student's and the
            teacher's box head of an entry; None where it has none.
        sampled (Mapping[str, Sampled]): What was sampled, by box head.

    Returns:
        dict[str, Callable]: ``roi_labels`` (n,), background being the number
        of classes.
    """
    if box_heads is None:
        return {}
    return {'roi_labels': lambda: _roi_labels(sampled[box_heads[0]])}


def _roi_labels(sampled: Sampled) -> Tensor:
    if sampled.labels is None:
        raise ValueError(
            'a loss or neck asks for `roi_labels`, but the box head of the '
            'student has no `loss_cls` that is given labels. Use another '
            'loss or neck.'
        )
    return sampled.labels


def _check_count(data_samples: object, images: int) -> list:
    """The samples, if there is one an image."""
    if isinstance(data_samples, Sequence) and len(data_samples) == images:
        return data_samples
    found = type(data_samples).__name__
    if isinstance(data_samples, Sequence):
        found += f' of {len(data_samples)}'
    raise ValueError(
        'a loss or neck asks for what belongs to each image, but this batch '
        f'has {images} images and as samples a {found} (the views of an '
        'image have one together). Use a loss or neck without labels.'
    )


def _are_classes(data_samples: object, images: int) -> bool:
    """Whether it is one class an image, as a loop may give them."""
    return (
        isinstance(data_samples, Tensor)
        and data_samples.shape == (images,)
        and data_samples.dtype in _INTEGERS
    )


def _gt_labels(data_samples: list) -> Tensor:
    if not all(map(_has_one_class, data_samples)):
        raise ValueError(
            'a loss or neck asks for `gt_labels`, one class an image, but an '
            'image has no label, several labels, or one for each task. Use a '
            "loss or neck without labels, for instance dict(type='"
            "BinaryKLDivergence') on the logits."
        )
    if any('gt_score' in sample for sample in data_samples):
        raise ValueError(
            'a loss or neck asks for `gt_labels`, but the labels are mixed '
            '(Mixup, CutMix) or soft. Remove `train_cfg.augments` and '
            '`data_preprocessor.to_onehot`, or use a method that needs no '
            'labels.'
        )
    if not all('gt_label' in sample for sample in data_samples):
        raise ValueError(
            'a loss or neck asks for `gt_labels`, one class an image, which '
            'only classification data has. Use another loss, or another '
            'option of it.'
        )
    return torch.cat([sample.gt_label for sample in data_samples])


def _has_one_class(sample: object) -> bool:
    """Whether a sample's label is one class; true where it has none."""
    if 'gt_label' not in sample:
        # The samples of several tasks list them.
        return not hasattr(sample, 'tasks')
    label = sample.gt_label
    # By shape and type: reading a value would wait for the device.
    return (
        isinstance(label, Tensor)
        and label.shape == (1,)
        and not label.is_floating_point()
    )


def _sample_idx(data_samples: list, device: torch.device) -> Tensor:
    indices = [_meta(sample, 'sample_idx') for sample in data_samples]
    # Without waiting: a copy to the device must not stop the step.
    return torch.tensor(indices).to(device, non_blocking=True)


def _gt_bboxes(data_samples: list) -> list[Tensor]:
    if not all('gt_instances' in sample for sample in data_samples):
        raise ValueError(
            'a loss or neck asks for `gt_bboxes`, which only detection data '
            'has. Use another loss.'
        )
    boxes = [sample.gt_instances.bboxes for sample in data_samples]
    return [getattr(box, 'tensor', box) for box in boxes]


def _meta(sample: object, key: str) -> object:
    if key not in sample.metainfo:
        raise ValueError(
            f'a loss or neck asks for `{key}`, which the data does not '
            f'carry. Add {key!r} to `meta_keys` of the last step of '
            '`train_dataloader.dataset.pipeline` (PackInputs, '
            'PackDetInputs, PackSegInputs).'
        )
    return sample.metainfo[key]
