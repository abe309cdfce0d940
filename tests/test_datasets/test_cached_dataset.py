import random

import numpy as np
import pytest
import torch
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS, DefaultScope
from mmengine.structures import BaseDataElement, InstanceData

from mmdiffkd.datasets import CachedDataset
from mmdiffkd.datasets.digit_scenes import draw_scene, write_scenes
from mmdiffkd.safety.seeded_data import SeededDataset, Visit


class Counting(BaseDataset):
    """Four samples; counts how often each is loaded."""

    METAINFO = dict(classes=('a', 'b'))

    def load_data_list(self):
        self.loaded = []
        return [dict(number=i) for i in range(4)]

    def __getitem__(self, index):
        self.loaded.append(index)
        return super().__getitem__(index)


def pack(results):
    number = results['number']
    boxes = InstanceData(bboxes=torch.full((2, 4), float(number)))
    sample = BaseDataElement(metainfo=dict(number=number), boxes=boxes)
    return dict(inputs=torch.full((3, 2, 2), number), data_samples=sample)


def cached(*transforms):
    return CachedDataset(Counting(pipeline=[*transforms, pack]))


def test_each_sample_is_loaded_once():
    dataset = cached()
    for index in (2, 0, 2, 3, 2, 0):
        assert dataset[index]['inputs'].unique().item() == index
    assert dataset.loaded == [2, 0, 3]


def test_what_is_changed_in_a_sample_does_not_stay():
    dataset = cached()
    for _ in range(2):
        sample = dataset[3]
        boxes = sample['data_samples'].boxes
        assert sample['inputs'].sum() == 36 and boxes.bboxes.sum() == 24
        sample['inputs'] *= 0
        boxes.bboxes *= 0
        sample['data_samples'].set_metainfo(dict(number=-1))
        sample['data_samples'].prediction = 1
        del sample['inputs']
    assert dataset[3]['data_samples'].number == 3
    assert 'prediction' not in dataset[3]['data_samples']


def test_other_attributes_are_those_of_the_data_set():
    dataset = cached()
    assert len(dataset) == 4
    assert dataset.metainfo == dict(classes=('a', 'b'))
    assert dataset.get_data_info(1) == dict(number=1, sample_idx=1)
    with pytest.raises(AttributeError, match='nothing'):
        dataset.nothing  # noqa: B018


@pytest.mark.parametrize(
    'draw',
    [
        lambda: random.random(),
        lambda: np.random.randint(3),
        lambda: np.random.normal(),
        lambda: torch.rand(1),
    ],
)
@pytest.mark.parametrize('seeded', [False, True])
def test_random_transforms_are_refused(draw, seeded):
    def shake(results):
        draw()
        return results

    dataset, index = cached(shake), 1
    if seeded:
        dataset, index = SeededDataset(dataset, 0), Visit(0, 0, 0, 1)
    with pytest.raises(ValueError, match='Counting draws random numbers'):
        dataset[index]


def test_a_config_builds_it(tmp_path):
    write_scenes(tmp_path, 'cls', dict(train=2))
    dataset = dict(
        type='CustomDataset',
        data_root=str(tmp_path / 'cls/train'),
        pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')],
    )
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        dataset = DATASETS.build(
            dict(type='mmdiffkd.CachedDataset', dataset=dataset)
        )
    assert len(dataset) == 2 and dataset.CLASSES is not None
    for number in range(2):
        image = draw_scene('cls', 'train', number).image
        assert any(
            np.array_equal(
                image[..., ::-1], dataset[i]['inputs'].permute(1, 2, 0)
            )
            for i in range(2)
        )
