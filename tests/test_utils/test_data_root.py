import pytest
from generated_data import write_class_folders
from mmengine.config import ConfigDict

from mmdiffkd.utils.data_root import check_data_root


@pytest.fixture
def root(tmp_path):
    write_class_folders(tmp_path / 'data')
    (tmp_path / 'data/train.txt').write_text('first/0.png 0')
    return str(tmp_path / 'data')


def check(dataset, scope='mmpretrain'):
    cfg = ConfigDict(
        train_dataloader=dict(dataset=dataset), default_scope=scope
    )
    check_data_root(cfg, ('train_dataloader', 'val_dataloader'))


def test_what_is_there_passes(root):
    kind = 'CustomDataset'
    check(dict(type=kind, data_root=root, data_prefix='train'))
    check(dict(type=kind, data_root=root, ann_file='train.txt'))
    check(dict(type=kind, data_prefix=f'{root}/train'))
    check(
        dict(
            type='mmdet.CocoDataset',
            data_root=root + '/',
            ann_file='',
            data_prefix=dict(img='train/', seg=None),
        )
    )
    check(dict(type=kind))


@pytest.mark.parametrize(
    ('settings', 'key'),
    [
        (dict(data_root='nowhere'), 'data_root'),
        (dict(ann_file='val.txt'), 'ann_file'),
        (dict(data_prefix='test'), 'data_prefix'),
        (dict(data_prefix=dict(img='test/')), r'data_prefix\.img'),
    ],
)
def test_what_is_missing_is_named(root, settings, key):
    dataset = dict(type='CustomDataset', data_root=root)
    dataset.update(settings)
    with pytest.raises(
        FileNotFoundError,
        match=rf'train_dataloader\.dataset\.{key}=.*--cfg-options',
    ):
        check(dataset)


def test_wrapped_data_sets_are_looked_at(root):
    whole = dict(type='CustomDataset', data_root=root)
    broken = dict(type='CustomDataset', data_root='nowhere')
    with pytest.raises(
        FileNotFoundError,
        match=r'train_dataloader\.dataset\.dataset\.datasets\.1\.data_root',
    ):
        check(
            dict(
                type='RepeatDataset',
                dataset=dict(type='ConcatDataset', datasets=[whole, broken]),
            )
        )


def test_digit_scenes_are_written_by_a_tool():
    with pytest.raises(
        FileNotFoundError, match='tools/dataset_converters/digit_scenes.py'
    ):
        check(dict(type='CustomDataset', data_root='no/digit_scenes/cls'))


def test_archive_of_cifar_is_named():
    with pytest.raises(FileNotFoundError, match='cifar-100-python.tar.gz'):
        check(dict(type='CIFAR100', data_root='no/cifar100', download=False))


def test_what_comes_from_elsewhere_is_left_alone():
    check(dict(type='CustomDataset', data_root='s3://bucket/data'))
    check(
        dict(
            type='CustomDataset',
            data_root='nowhere',
            backend_args=dict(backend='petrel'),
        )
    )
    check(dict(type='CIFAR10', data_root='nowhere'))
    check(dict(type='mmpretrain.CIFAR100', data_root='nowhere'), scope=None)
    with pytest.raises(FileNotFoundError, match='data_root'):
        check(dict(type='CIFAR10', data_root='nowhere', download=False))


@pytest.mark.parametrize(
    ('name', 'content'),
    [('empty.txt', ''), ('empty.json', ''), ('cut.json', '{"images": [{"id')],
)
def test_annotation_files_that_are_not_whole_are_named(root, name, content):
    path = f'{root}/{name}'
    with open(path, 'w') as file:
        file.write(content)
    with pytest.raises(ValueError, match=rf'ann_file.*{path}.*truncated'):
        check(dict(type='CustomDataset', data_root=root, ann_file=name))


def test_whole_json_passes(root):
    with open(f'{root}/whole.json', 'w') as file:
        file.write('{"images": []}\n')
    check(dict(type='CustomDataset', data_root=root, ann_file='whole.json'))
