import pickle
from types import SimpleNamespace

import cv2
import pytest
from generated_data import write_class_folders
from mmengine.dataset import Compose
from mmengine.registry import DATASETS, DefaultScope

from mmdiffkd.utils.pipelines import (
    LoadErrorHook,
    name_load_errors,
    transforms_of,
)


@pytest.fixture
def dataset(tmp_path):
    write_class_folders(tmp_path / 'data')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return DATASETS.build(
            dict(
                type='RepeatDataset',
                times=2,
                dataset=dict(
                    type='CustomDataset',
                    data_root=str(tmp_path / 'data'),
                    data_prefix='train',
                    pipeline=[dict(type='LoadImageFromFile')],
                ),
            )
        )


def test_a_broken_file_is_named(dataset, tmp_path):
    image = tmp_path / 'data/train/first/0.png'
    image.write_bytes(b'')
    # The decoder's own message does not say which file it was.
    with pytest.raises(cv2.error) as unnamed:
        dataset[0]
    assert str(image) not in str(unnamed.value)
    name_load_errors(dataset)
    with pytest.raises(ValueError, match=rf"img_path='{image}'.*Replace"):
        dataset[0]


def test_an_error_that_names_the_file_stays_as_it_is(dataset, tmp_path):
    image = tmp_path / 'data/train/first/0.png'
    name_load_errors(dataset)
    image.unlink()
    with pytest.raises(FileNotFoundError, match=str(image)):
        dataset[0]


def test_readable_files_and_types_are_not_touched(dataset):
    before = dataset[0]['img']
    name_load_errors(dataset)
    name_load_errors(dataset)
    (load,) = dataset.dataset.pipeline.transforms
    assert type(load).__name__ == 'LoadImageFromFile'
    # Workers that are spawned, not forked, get a pickled copy.
    copy = pickle.loads(pickle.dumps(dataset))
    assert (dataset[0]['img'] == before).all()
    assert (copy[0]['img'] == before).all()


def test_label_maps_are_named(tmp_path):
    label = tmp_path / 'label.png'
    label.write_text('no image')

    dataset = SimpleNamespace(
        pipeline=Compose([dict(type='mmseg.LoadAnnotations')])
    )
    name_load_errors(dataset)
    with pytest.raises(ValueError, match=rf"seg_map_path='{label}'"):
        dataset.pipeline(dict(seg_map_path=str(label), seg_fields=[]))


@pytest.mark.parametrize('content', ['truncated', 'no image', 'missing'])
def test_whatever_is_wrong_with_an_image_it_is_named(
    dataset, tmp_path, content
):
    image = tmp_path / 'data/train/first/0.png'
    whole = image.read_bytes()
    image.unlink()
    if content == 'truncated':
        image.write_bytes(whole[: len(whole) // 2])
    elif content == 'no image':
        image.write_text('an error page of a server')
    name_load_errors(dataset)
    with pytest.raises(Exception, match=str(image)):
        dataset[0]


@pytest.mark.parametrize('empty', ['train', 'val'])
def test_a_data_set_without_samples_is_named(dataset, empty):
    class Empty:
        ann_file = 'there/train.json'

        def __len__(self):
            return 0

    datasets = dict(train=dataset, val=dataset) | {empty: Empty()}
    loops = {
        f'_{kind}_loop': SimpleNamespace(
            dataloader=SimpleNamespace(dataset=datasets[kind])
        )
        for kind in datasets
    }
    runner = SimpleNamespace(**loops, _test_loop=dict())
    with pytest.raises(
        ValueError,
        match=rf"`{empty}_dataloader.dataset`.*ann_file='there/train.json'",
    ):
        LoadErrorHook().before_run(runner)


def stub(*transforms, **wrapped):
    pipeline = SimpleNamespace(transforms=list(transforms))
    return SimpleNamespace(pipeline=pipeline, **wrapped)


def test_transforms_of_wrapped_data_sets_are_found():
    joined = SimpleNamespace(datasets=[stub('a'), stub('b', 'c')])
    # mmdet's MultiImageMixDataset has a list for a pipeline.
    mixed = SimpleNamespace(dataset=joined, pipeline=['d'])
    assert list(transforms_of(mixed)) == ['a', 'b', 'c', 'd']
    assert list(transforms_of(SimpleNamespace())) == []
    assert list(transforms_of(SimpleNamespace(pipeline=None))) == []
