from collections import OrderedDict
from contextlib import nullcontext
from itertools import count

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.registry import MODELS, DefaultScope
from perturbation import Perturbation

from mmdiffkd.utils import progress


def pytest_addoption(parser):
    parser.addoption(
        '--perturb',
        type=int,
        metavar='SEED',
        help='move products by a unit in the last place, as another '
        'processor may; leaves out what is marked exact',
    )


def pytest_collection_modifyitems(config, items):
    if config.getoption('--perturb') is None:
        return
    exact = [item for item in items if item.get_closest_marker('exact')]
    config.hook.pytest_deselected(items=exact)
    items[:] = [item for item in items if item not in exact]


@pytest.fixture(autouse=True)
def perturbation(request):
    """What ``--perturb`` asks for, while a test runs."""
    seed = request.config.getoption('--perturb')
    with nullcontext() if seed is None else Perturbation(seed):
        yield


@pytest.fixture(autouse=True)
def no_scope():
    """A runner leaves its default scope behind; a test starts without.

    A fixture of a module may have run one before this.
    """
    DefaultScope._instance_dict.clear()


@pytest.fixture(autouse=True)
def seed():
    """A test draws the same numbers each time, whatever ran before it."""
    torch.manual_seed(0)


@pytest.fixture
def build():
    """Build a model of the tests, under mmpretrain's scope."""

    def function(config: dict) -> torch.nn.Module:
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            return MODELS.build(config)

    return function


@pytest.fixture
def ready(build):
    """Build a model and initialise it; it is in train mode."""

    def function(config: dict) -> torch.nn.Module:
        model = build(config)
        model.init_weights()
        return model.train()

    return function


@pytest.fixture
def slow_items(monkeypatch):
    """Each item of long work takes 11 seconds, so that all are shown."""
    ticks = count(step=11.0)
    monkeypatch.setattr(progress, 'monotonic', lambda: next(ticks))


@pytest.fixture
def log(caplog, monkeypatch):
    """What MMEngine's loggers say reaches pytest."""
    monkeypatch.setattr(MMLogger, '_instance_dict', OrderedDict())
    logger = MMLogger.get_instance('teacher')
    monkeypatch.setattr(logger, 'handlers', [caplog.handler])
    return caplog
