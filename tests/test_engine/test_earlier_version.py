"""A checkpoint that version 0.1.0 wrote is resumed with the same losses."""

import json
import shutil
from pathlib import Path

import pytest
import tiny_recipes
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

DATA = Path(__file__).resolve().parents[1] / 'data'


@HOOKS.register_module(force=True)
class LossRecorder(Hook):
    def __init__(self):
        self.losses = []

    def after_train_iter(
        self, runner, batch_idx, data_batch=None, outputs=None
    ):
        self.losses.append({k: float(v.detach()) for k, v in outputs.items()})


def recipe(root):
    """As it was trained: maps, vectors, a schedule, a loss that learns."""
    walk = dict(
        num_train_timesteps=50,
        start_timestep=25,
        denoiser=dict(num_timesteps=50),
    )
    distill = dict(
        feature=tiny_recipes.feature_entry(
            neck=dict(type='DiffKDNeck', latent_channels=8, **walk),
            schedule=dict(warmup=3),
        ),
        logits=tiny_recipes.logits_entry(
            neck=dict(type='DiffKDNeck', feature='vector', **walk),
            loss=dict(type='KLDivergence', tau=2.0),
        ),
        vid=dict(
            at='backbone[0]',
            neck=dict(type='VIDNeck'),
            loss=dict(type='VIDLoss'),
        ),
    )
    model = tiny_recipes.distiller(
        distill=distill, teacher=tiny_recipes.teacher(base=4)
    )
    return tiny_recipes.recipe(root, model, **tiny_recipes.DISTILL_LINES)


def test_resumed_with_the_same_losses(tmp_path):
    checkpoint = tmp_path / 'epoch_1.pth'
    shutil.copy(DATA / 'run_of_0.1.0.ckpt', checkpoint)
    config = recipe(tmp_path)
    config.update(resume=True, load_from=str(checkpoint))
    runner = Runner.from_cfg(config)
    recorder = LossRecorder()
    runner.register_hook(recorder)
    runner.train()
    expected = json.loads((DATA / 'run_of_0.1.0.json').read_text())
    assert len(recorder.losses) == len(expected)
    for found, before in zip(recorder.losses, expected):
        assert found.keys() == before.keys()
        # To the last bit where it was written; not on every processor.
        assert found == pytest.approx(before, rel=1e-4)
