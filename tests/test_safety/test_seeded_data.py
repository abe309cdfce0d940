import pickle
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmdet.datasets.samplers import AspectRatioBatchSampler
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from mmengine.runner.loops import _InfiniteDataloaderIterator
from torch.utils.data import BatchSampler, DataLoader, IterableDataset

from mmdiffkd.safety.seeded_data import (
    SeededDataset,
    Visit,
    VisitBatches,
    seed_samples,
)


class Drawing(torch.utils.data.Dataset):
    """Its samples are what they draw from the three generators."""

    def __init__(self, length=10):
        self.length = length
        self.pipeline = 'theirs'

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        return torch.tensor(
            [index, torch.rand(()), np.random.rand(), random.random()]
        )

    def get_data_info(self, index):
        return dict(width=1 + index % 2, height=1.5)


def draw():
    return torch.rand(()).item(), np.random.randn(), random.random()


def test_a_visit_has_a_stream_of_its_own():
    dataset = SeededDataset(Drawing(), 3)
    first = dataset[Visit(0, 1, 2, 5)]
    draw()
    assert torch.equal(dataset[Visit(0, 1, 2, 5)], first)
    for other in ((1, 1, 2, 5), (0, 2, 2, 5), (0, 1, 3, 5)):
        sample = dataset[Visit(*other)]
        assert sample[0] == 5 and not (sample[1:] == first[1:]).any()
    assert not (SeededDataset(Drawing(), 4)[Visit(0, 1, 2, 5)] == first)[
        1:
    ].any()


def test_the_process_draws_as_if_nothing_had_been_loaded():
    dataset = SeededDataset(Drawing(), 3)
    torch.manual_seed(0), np.random.seed(0), random.seed(0)
    expected = [draw(), draw()]
    torch.manual_seed(0), np.random.seed(0), random.seed(0)
    found = [draw()]
    dataset[Visit(0, 0, 0, 0)]
    found.append(draw())
    assert found == expected


def test_attributes_pass_both_ways():
    inner = Drawing()
    dataset = SeededDataset(inner, 3)
    assert len(dataset) == 10
    assert dataset.pipeline == 'theirs'
    dataset.pipeline = 'new'
    assert inner.pipeline == 'new'
    assert not hasattr(dataset, 'metainfo')
    # Workers that are spawned get a pickled copy.
    copy = pickle.loads(pickle.dumps(dataset))
    visit = Visit(0, 0, 0, 1)
    assert copy.pipeline == 'new' and torch.equal(copy[visit], dataset[visit])
    # By a bare index, as some hooks ask, nothing is seeded.
    assert not (dataset[1] == dataset[1])[1:].any()


def loop_of(loader, endless):
    """The parts of a training loop that matter here."""
    cls = IterBasedTrainLoop if endless else EpochBasedTrainLoop
    loop = cls.__new__(cls)
    loop._dataloader = loop.dataloader = loader
    if endless:
        loop.dataloader_iterator = _InfiniteDataloaderIterator(loader)
    return loop


def loader_of(dataset, sampler, aspect_ratio=False, **settings):
    if aspect_ratio:
        batches = AspectRatioBatchSampler(sampler, batch_size=3)
        return DataLoader(dataset, batch_sampler=batches, **settings)
    return DataLoader(dataset, batch_size=3, sampler=sampler, **settings)


def epochs(settings, count=3, first=0):
    dataset = Drawing()
    sampler = DefaultSampler(dataset, seed=1)
    loop = loop_of(loader_of(dataset, sampler, **settings), endless=False)
    batches = seed_samples(loop, 7)
    for epoch in range(first, count):
        batches.epoch = epoch
        sampler.set_epoch(epoch)
        yield torch.cat(list(loop.dataloader))


@pytest.mark.parametrize('aspect_ratio', [False, True])
def test_epochs_are_the_same_with_any_workers(aspect_ratio):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    settings = dict(aspect_ratio=aspect_ratio)
    expected = list(epochs(settings))
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(expected[0].sort(0)[0], expected[1].sort(0)[0])
    for persistent in (False, True):
        workers = dict(num_workers=2, persistent_workers=persistent)
        found = list(epochs(settings | workers, first=1))
        for one, other in zip(found, expected[1:]):
            assert torch.equal(one, other)


@pytest.mark.parametrize('kind', [DefaultSampler, InfiniteSampler])
@pytest.mark.parametrize('aspect_ratio', [False, True])
@pytest.mark.parametrize('workers', [0, 2])
def test_iterations_go_on_where_they_stopped(kind, aspect_ratio, workers):
    def start():
        dataset = Drawing()
        loader = loader_of(
            dataset, kind(dataset, seed=1), aspect_ratio, num_workers=workers
        )
        loop = loop_of(loader, endless=True)
        batches = seed_samples(loop, 7)
        return loop.dataloader_iterator, batches

    straight, _ = start()
    expected = [next(straight) for _ in range(9)]
    # Nothing is drawn twice, though the data are passed over twice.
    drawn = torch.cat(expected)[:, 1]
    assert len(drawn.unique()) == len(drawn) > 20
    resumed, batches = start()
    batches.skip(5)
    for batch in expected[5:]:
        assert torch.equal(next(resumed), batch)


def test_skipped_samples_are_not_loaded():
    class Loud(Drawing):
        def __getitem__(self, index):
            raise AssertionError('loaded')

    dataset = Loud()
    loop = loop_of(loader_of(dataset, InfiniteSampler(dataset, seed=1)), True)
    batches = seed_samples(loop, 7)
    batches.skip(4)
    batch = next(iter(batches))
    assert [visit.position for visit in batch] == [12, 13, 14]


def test_a_batch_sampler_is_still_found():
    dataset = Drawing()
    inner = BatchSampler(DefaultSampler(dataset, seed=1), 3, drop_last=True)
    batches = VisitBatches(inner, endless=False)
    assert len(batches) == 3
    assert batches.batch_size == 3
    assert batches.sampler is inner.sampler


@pytest.mark.parametrize('case', ['stream', 'no batches'])
def test_data_without_order_are_refused(case):
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(range(3))

    loader = {
        'stream': DataLoader(Stream()),
        'no batches': DataLoader(Drawing(), batch_size=None),
    }[case]
    with pytest.raises(ValueError, match='exact_resume.*batch_size'):
        seed_samples(SimpleNamespace(dataloader=loader), 7)
