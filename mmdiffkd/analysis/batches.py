"""Random batches of every task, for measurements without any data."""

import torch
from torch import Tensor, nn

from mmdiffkd.models.distillers import Distiller

# The paper's sizes, where the config does not say.
INPUT_SIZES = {
    'mmpretrain': (224, 224),
    'mmdet': (800, 1344),
    'mmseg': (512, 1024),
}
# The length of the data set, for which memory banks are made.
DATA_LENGTH = 50_000


def package_of(student: nn.Module) -> str:
    """The OpenMMLab package that a model's class is derived from.

    Raises:
        ValueError: If it is derived from none.
    """
    packages = [c.__module__.partition('.')[0] for c in type(student).__mro__]
    for package in INPUT_SIZES:
        if package in packages:
            return package
    raise ValueError(
        f'the student {type(student).__name__} is derived from no model of '
        f'{", ".join(INPUT_SIZES)}, so that no batch can be made up for it.'
    )


def make_batch(
    model: Distiller, batch_size: int, size: tuple[int, int]
) -> tuple[Tensor, list]:
    """Random images and annotations, as the student's preprocessor gives.

    Necks and losses that ask for the length of the data get
    :data:`DATA_LENGTH`. Those that ask for a pass over the data get this
    batch.

    Returns:
        tuple[Tensor, list]: Normalised images (B, C, height, width) and data
        samples.
    """
    channels = model.input_shape[-3]
    task = package_of(model.student)
    if task == 'mmseg':
        # Otherwise it pads to the size of its recipe.
        model.data_preprocessor.size = size
    # Heads differ: a region proposal network has one class.
    classes = max(
        module.num_classes
        for module in model.student.modules()
        if isinstance(getattr(module, 'num_classes', None), int)
    )
    if task == 'mmdet':
        from mmdet.testing import demo_mm_inputs

        batch = demo_mm_inputs(
            batch_size,
            [(channels, *size)] * batch_size,
            num_classes=classes,
            with_mask=getattr(model.student, 'with_mask', False),
        )
    else:
        make = {'mmpretrain': _class_sample, 'mmseg': _label_map_sample}[task]
        images = torch.randint(0, 256, (batch_size, channels, *size)).byte()
        batch = {
            'inputs': list(images),
            'data_samples': [make(classes, size) for _ in range(batch_size)],
        }
    batch = model.data_preprocessor(batch, True)
    inputs, data_samples = batch['inputs'], batch['data_samples']
    for index, sample in enumerate(data_samples):
        sample.set_metainfo({'sample_idx': index})
    model.allocate(DATA_LENGTH, torch.arange(DATA_LENGTH) % classes)
    model.prepare(lambda: [inputs])
    return inputs, data_samples


def _class_sample(classes: int, size: tuple[int, int]):
    from mmpretrain.structures import DataSample

    return DataSample().set_gt_label(int(torch.randint(classes, ())))


def _label_map_sample(classes: int, size: tuple[int, int]):
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    sample = SegDataSample(metainfo={'img_shape': size, 'ori_shape': size})
    sample.gt_sem_seg = PixelData(data=torch.randint(classes, (1, *size)))
    return sample
