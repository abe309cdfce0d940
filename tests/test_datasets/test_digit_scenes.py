import hashlib
import json

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from mmdiffkd.datasets import digit_scenes
from mmdiffkd.datasets.digit_scenes import (
    CLASSES,
    DIGITS,
    LAYOUTS,
    MANIFEST,
    PALETTE,
    SIZES,
    draw_scene,
    is_complete,
    write_scenes,
)

SMALL = dict(train=6, val=3, test=3)
every_task = pytest.mark.parametrize('task', LAYOUTS)


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob('*')
        if path.is_file()
    }


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp('digit_scenes')
    for task in LAYOUTS:
        write_scenes(root, task, SMALL)
    return root


def test_splits_share_no_digit_and_use_all():
    numbers = [number for split in DIGITS.values() for number in split]
    assert sorted(numbers) == list(range(len(load_digits().target)))


def test_default_sizes():
    assert SIZES['cls'] == dict(train=12000, val=1000, test=2000)
    assert SIZES['det'] == dict(train=3000, val=300, test=600)
    assert all(set(sizes) == set(DIGITS) for sizes in SIZES.values())


@every_task
@pytest.mark.parametrize('split', DIGITS)
def test_scene(task, split):
    layout, targets = LAYOUTS[task], load_digits().target
    numbers = set()
    for index in range(40):
        scene = draw_scene(task, split, index)
        assert scene.image.shape == (layout.height, layout.width, 3)
        assert scene.image.dtype == np.uint8
        assert 1 <= len(scene.digits) <= layout.digits[1]
        numbers.add(len(scene.digits))

        sources = [digit.source for digit in scene.digits]
        assert set(sources) | set(scene.clutter) <= set(DIGITS[split])
        assert [d.label for d in scene.digits] == targets[sources].tolist()

        assert sum(d.mask.astype(int) for d in scene.digits).max() == 1
        for digit in scene.digits:
            assert digit.mask.sum() >= 0.75 * digit.area
            x, y, width, height = digit.box
            assert 0 <= x < x + width <= layout.width
            assert 0 <= y < y + height <= layout.height
            inside = digit.mask[y : y + height, x : x + width]
            assert inside.sum() == digit.mask.sum()
            for border in (inside[0], inside[-1], inside[:, 0], inside[:, -1]):
                assert border.any()

        labels = scene.label_map
        expected = {0} | {digit.label + 1 for digit in scene.digits}
        assert set(np.unique(labels)) == expected
        assert (labels > 0).sum() == sum(d.mask.sum() for d in scene.digits)
    assert max(numbers) == layout.digits[1]


# The pixels of an image go through a JPEG decoder, which differs between
# versions of Pillow: only their mean is recorded.
@pytest.mark.parametrize(
    'task, split, label_maps, mean',
    [
        ('cls', 'train', 'd89b3d01d91192e4', 60.7),
        ('cls', 'val', '68187ccc789b156c', 58.8),
        ('cls', 'test', '3a130d61a9fc13a3', 40.0),
        ('det', 'train', 'ae35a47496e9d60c', 62.7),
        ('det', 'val', '7686dcd1c5f18ce6', 57.1),
        ('det', 'test', '7bb9459a159e219f', 51.7),
        ('seg', 'train', '8e841abd99d358b9', 51.3),
        ('seg', 'val', '3ae5f127e5f88895', 49.2),
        ('seg', 'test', 'bc99f9d4f01796b5', 46.3),
    ],
)
def test_scenes_are_those_of_the_first_version(task, split, label_maps, mean):
    """SHA-256 over the label maps of three scenes, and their mean colour."""
    scenes = [draw_scene(task, split, index) for index in range(3)]
    digest = hashlib.sha256(b''.join(s.label_map.tobytes() for s in scenes))
    assert digest.hexdigest().startswith(label_maps)
    colour = np.mean([scene.image for scene in scenes])
    assert colour == pytest.approx(mean, abs=0.5)


def test_unknown_split():
    with pytest.raises(ValueError, match="split='tuning'.*train, val, test"):
        draw_scene('cls', 'tuning', 0)


class Extremes:
    """A generator that gives a size, then a stretch, then an angle."""

    def __init__(self, *values):
        self.values = iter(values)

    def integers(self, *args, **kwargs):
        return next(self.values)

    uniform = integers


@pytest.mark.parametrize('stretch', (0.7, 1.1))
@pytest.mark.parametrize('angle', (-25, 25))
def test_every_digit_fits_its_scene(angle, stretch):
    """However large and turned it is, so that no scene stays empty."""
    layout = LAYOUTS['cls']
    for digit in digit_scenes._digits()[0]:
        extremes = Extremes(layout.size[1], stretch, angle)
        height, width = digit_scenes._coverage(
            digit, layout.size, extremes
        ).shape
        assert height <= layout.height and width <= layout.width


def test_every_class_occurs():
    scenes = [draw_scene('cls', 'train', index) for index in range(300)]
    counts = np.bincount([scene.digits[0].label for scene in scenes])
    assert len(counts) == len(CLASSES) and counts.min() >= 10


def test_a_digit_can_be_seen():
    """Its colour differs from that of the ring around it."""
    contrasts = []
    for index in range(50):
        scene = draw_scene('cls', 'train', index)
        mask = scene.digits[0].mask
        grown = np.zeros_like(mask)
        for shift in ((2, 0), (-2, 0), (0, 2), (0, -2)):
            grown |= np.roll(mask, shift, (0, 1))
        image = scene.image.astype(float)
        around = image[grown & ~mask].mean(0)
        contrasts.append(abs(image[mask].mean(0) - around).max())
    assert np.median(contrasts) > 40


@every_task
def test_seed_task_split_and_index_choose_the_scene(task):
    image = draw_scene(task, 'train', 3, seed=1).image
    assert (draw_scene(task, 'train', 3, seed=1).image == image).all()
    for other in ((task, 'train', 3, 2), (task, 'train', 4, 1)):
        assert (draw_scene(*other).image != image).any()
    assert (draw_scene(task, 'test', 3, 1).image != image).any()


@every_task
def test_written_files_are_the_same_every_time(task, root, tmp_path):
    write_scenes(tmp_path, task, SMALL)
    files = contents(tmp_path / task)
    assert files == contents(root / task)
    assert len(files) > sum(SMALL.values())


def test_scenes_do_not_depend_on_how_many_there_are(root, tmp_path):
    write_scenes(tmp_path, 'cls', dict(train=2, test=1))
    few = contents(tmp_path / 'cls')
    del few[MANIFEST]
    assert few.items() <= contents(root / 'cls').items()


def test_progress_is_tracked(tmp_path):
    seen = []

    def track(todo):
        seen.extend(todo)
        return todo

    write_scenes(tmp_path, 'cls', dict(train=2, test=1), track=track)
    assert seen == [('train', 0), ('train', 1), ('test', 0)]


class TestComplete:
    @pytest.fixture
    def root(self, tmp_path):
        write_scenes(tmp_path, 'cls', SMALL)
        return tmp_path

    def test_says_so(self, root):
        assert is_complete(root, 'cls', SMALL)
        assert not is_complete(root, 'cls', SMALL, seed=1)
        assert not is_complete(root, 'cls', SMALL | dict(test=4))
        assert not is_complete(root, 'det', SMALL)

    def test_manifest(self, root):
        manifest = json.loads((root / 'cls' / MANIFEST).read_text())
        assert manifest['seed'] == 0 and manifest['sizes'] == SMALL
        assert len(manifest['sha256']) == 64

    def test_a_file_is_missing(self, root):
        next(root.glob('cls/test/*/*.png')).unlink()
        assert not is_complete(root, 'cls', SMALL)

    def test_a_file_is_damaged(self, root):
        path = next(root.glob('cls/test/*/*.png'))
        path.write_bytes(path.read_bytes()[:-1])
        assert not is_complete(root, 'cls', SMALL)

    def test_an_interrupted_run_leaves_what_was_there(self, root):
        def interrupt(todo):
            yield todo[0]
            raise KeyboardInterrupt

        before = contents(root / 'cls')
        with pytest.raises(KeyboardInterrupt):
            write_scenes(root, 'cls', SMALL, seed=1, track=interrupt)
        assert contents(root / 'cls') == before
        assert not is_complete(root, 'cls', SMALL, seed=1)
        write_scenes(root, 'cls', SMALL, seed=1)
        assert is_complete(root, 'cls', SMALL, seed=1)
        assert [path.name for path in root.iterdir()] == ['cls']

    def test_a_foreign_folder_is_kept(self, tmp_path):
        (tmp_path / 'det').mkdir()
        (tmp_path / 'det/precious.txt').write_text('mine')
        with pytest.raises(FileExistsError, match='another folder'):
            write_scenes(tmp_path, 'det', SMALL)
        assert (tmp_path / 'det/precious.txt').read_text() == 'mine'


def test_mmpretrain_reads_cls(root):
    datasets = pytest.importorskip('mmpretrain.datasets')
    for split, size in SMALL.items():
        dataset = datasets.CustomDataset(
            data_root=str(root / 'cls'), data_prefix=split
        )
        assert len(dataset) == size
        for index in range(size):
            info = dataset.get_data_info(index)
            number = int(info['img_path'][-10:-4])
            scene = draw_scene('cls', split, number)
            name = dataset.CLASSES[info['gt_label']]
            assert name == CLASSES[scene.digits[0].label]
            image = np.asarray(Image.open(info['img_path']))
            assert (image == scene.image).all()


def test_mmdet_reads_det(root):
    datasets = pytest.importorskip('mmdet.datasets')
    for split, size in SMALL.items():
        dataset = datasets.CocoDataset(
            data_root=str(root / 'det'),
            ann_file=f'annotations/instances_{split}.json',
            data_prefix=dict(img=f'{split}/'),
            metainfo=dict(classes=CLASSES),
        )
        assert len(dataset) == size
        for index in range(size):
            info = dataset.get_data_info(index)
            digits = draw_scene('det', split, index).digits
            instances = info['instances']
            assert [i['bbox_label'] for i in instances] == [
                digit.label for digit in digits
            ]
            for instance, digit in zip(instances, digits):
                x, y, width, height = digit.box
                assert instance['bbox'] == [x, y, x + width, y + height]
            image = np.asarray(Image.open(info['img_path']))
            assert image.shape == (info['height'], info['width'], 3)


@pytest.mark.parametrize('ours', (True, False))
def test_mmseg_reads_seg(root, ours):
    """By the base class with our classes, by Cityscapes' with its own."""
    datasets = pytest.importorskip('mmseg.datasets')
    cls, options = datasets.CityscapesDataset, {}
    if ours:
        cls = datasets.BaseSegDataset
        options = dict(
            img_suffix='_leftImg8bit.png',
            seg_map_suffix='_gtFine_labelTrainIds.png',
            metainfo=dict(classes=('background', *CLASSES), palette=PALETTE),
        )
    for split, size in SMALL.items():
        dataset = cls(
            data_root=str(root / 'seg'),
            data_prefix=dict(
                img_path=f'leftImg8bit/{split}', seg_map_path=f'gtFine/{split}'
            ),
            **options,
        )
        assert len(dataset) == size
        for index in range(size):
            info = dataset.get_data_info(index)
            scene = draw_scene('seg', split, index)
            image = np.asarray(Image.open(info['img_path']))
            labels = np.asarray(Image.open(info['seg_map_path']))
            assert (image == scene.image).all()
            assert (labels == scene.label_map).all()
            assert labels.dtype == np.uint8 and labels.max() <= 10
