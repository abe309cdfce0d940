from contextlib import nullcontext

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner
from perturbation import Perturbation

from mmdiffkd.utils.command_line import end_workers


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


@pytest.fixture
def build():
    """Build a model of the tests, under mmpretrain's scope."""

    def function(config: dict) -> torch.nn.Module:
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            return MODELS.build(config)

    return function


@pytest.fixture
def run():
    """Train a recipe by the real runner; gives the runner."""

    def function(config: Config) -> Runner:
        config.experiment_name = f'{id(config)}_{torch.rand(1).item()}'
        runner = Runner.from_cfg(config)
        runner.train()
        end_workers(runner)
        return runner

    return function
