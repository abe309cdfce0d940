"""Work directories of runs that were never trained, for the report."""

import json
from pathlib import Path

import tiny_recipes
import torch
from mmengine.config import Config
from torch import nn

from mmdiffkd.analysis.report.run import FinishedRun, read_run
from mmdiffkd.models.distillers.teacher import build_from_config

ENVIRONMENT = """
2026/01/01 00:00:00 - mmengine - INFO -
------------------------------------------------------------
System environment:
    sys.platform: linux
    PyTorch: 2.11.0

Runtime environment:
    seed: 0
------------------------------------------------------------
"""
#: Two epochs of two logged steps, and the teacher before them.
LINES = (
    {'teacher/accuracy/top1': 90.0, 'step': 0},
    {'loss': 2.0, 'distill.feature.loss_kd': 5.0, 'epoch': 1, 'step': 2},
    {'loss': 1.5, 'distill.feature.loss_kd': 4.0, 'epoch': 1, 'step': 4},
    {'accuracy/top1': 40.0, 'time': 0.1, 'step': 1},
    {'loss': 1.25, 'distill.feature.loss_kd': 3.0, 'epoch': 2, 'step': 6},
    {'loss': 1.0, 'distill.feature.loss_kd': 2.5, 'epoch': 2, 'step': 8},
    {'accuracy/top1': 62.5, 'time': 0.1, 'step': 2},
)


def logged(line: dict) -> dict:
    """A line as MMEngine writes it, with what a step of training has."""
    if 'epoch' not in line:
        return line
    more = {'iter': line['step'], 'time': 0.125, 'lr': 0.05}
    return {**line, **more, 'distill.feature.gamma': 0.75}


def write_run(
    folder: Path,
    lines=LINES,
    config: Config | None = None,
    checkpoint: str | None = 'epoch_2.pth',
) -> Path:
    """Write what a run leaves.

    Args:
        folder (Path): The work directory.
        lines (Sequence[dict]): What it logged. Defaults to :data:`LINES`.
        config (Config, optional): Its config. Defaults to None, no config.
        checkpoint (str, optional): The name of the last checkpoint, which
            is written without weights; None for none.

    Returns:
        Path: ``folder``.
    """
    start = folder / '20260101_000000'
    (start / 'vis_data').mkdir(parents=True)
    (start / '20260101_000000.log').write_text(ENVIRONMENT)
    (start / 'vis_data/scalars.json').write_text(
        ''.join(json.dumps(logged(line)) + '\n' for line in lines)
    )
    if config is not None:
        (start / 'vis_data/config.py').write_text(config.pretty_text)
    if checkpoint is not None:
        torch.save({}, folder / checkpoint)
        (folder / 'last_checkpoint').write_text(f'/gone/{checkpoint}')
    return folder


def distilled(root: Path, **changes) -> Config:
    """The recipe of a tiny distiller on generated images."""
    return tiny_recipes.distill_recipe(root, **changes)


def run_with_weights(
    root: Path, config: Config, name: str = 'run'
) -> tuple[FinishedRun, nn.Module]:
    """A run whose checkpoint has random weights, and so has its teacher."""
    folder = write_run(root / name, config=config)
    torch.manual_seed(0)
    model = build_from_config(config)
    model.init_weights()
    states = {True: {}, False: {}}
    for key, value in model.state_dict().items():
        states[key.startswith('distill.')][key] = value
    torch.save(
        dict(state_dict=states[False], distill_state_dict=states[True]),
        folder / 'epoch_2.pth',
    )
    return read_run(folder, name), model


def with_teacher(root: Path, config: Config) -> Config:
    """The config with a checkpoint of its teacher."""
    teacher = build_from_config(config).teacher.network
    teacher.init_weights()
    torch.save(dict(state_dict=teacher.state_dict()), root / 'teacher.pth')
    config.model.teacher.checkpoint = str(root / 'teacher.pth')
    return config
