from pathlib import Path

import pytest
import tiny_recipes
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from tiny_recipes import DISTILL_LINES

from mmdiffkd.engine import checkpoint_hook
from mmdiffkd.utils import read_checkpoint


def test_checkpoint_is_the_plain_students(tmp_path, run, build):
    runner = run(
        tiny_recipes.recipe(
            tmp_path, tiny_recipes.distiller(), **DISTILL_LINES
        )
    )
    checkpoint = read_checkpoint(tmp_path / 'work/epoch_2.pth')
    assert not [k for k in checkpoint['state_dict'] if 'distill' in k]
    assert checkpoint['distill_state_dict']['distill.step'] == 4
    assert not any('teacher' in k for k in checkpoint['distill_state_dict'])
    plain = build(tiny_recipes.classifier())
    plain.load_state_dict(checkpoint['state_dict'], strict=True)
    assert torch.equal(
        plain.head.fc.weight, runner.model.student.head.fc.weight
    )


def test_plain_runner_loads_it(tmp_path, run):
    run(
        tiny_recipes.recipe(
            tmp_path, tiny_recipes.distiller(), **DISTILL_LINES
        )
    )
    checkpoint = tmp_path / 'work/epoch_2.pth'
    plain = run(
        tiny_recipes.recipe(
            tmp_path,
            tiny_recipes.classifier(),
            epochs=1,
            load_from=str(checkpoint),
            work_dir=str(tmp_path / 'plain'),
            optim_wrapper=dict(optimizer=dict(lr=0.0, weight_decay=0.0)),
        )
    )
    saved = read_checkpoint(checkpoint)['state_dict']
    assert torch.equal(plain.model.head.fc.weight, saved['head.fc.weight'])


def test_load_from_a_plain_checkpoint_initialises_the_student(tmp_path, run):
    run(
        tiny_recipes.recipe(
            tmp_path,
            tiny_recipes.classifier(),
            epochs=1,
            work_dir=str(tmp_path / 'plain'),
        )
    )
    plain = tmp_path / 'plain/epoch_1.pth'
    config = tiny_recipes.recipe(
        tmp_path,
        tiny_recipes.distiller(),
        epochs=1,
        load_from=str(plain),
        **DISTILL_LINES,
    )
    config.optim_wrapper.optimizer = dict(type='SGD', lr=0.0)
    runner = run(config)
    saved = read_checkpoint(plain)['state_dict']
    assert torch.equal(
        runner.model.student.head.fc.weight, saved['head.fc.weight']
    )


def weights(runner):
    return {k: v.clone() for k, v in runner.model.state_dict().items()}


@pytest.mark.parametrize('ema', [False, True])
def test_resume_restores_student_and_necks(tmp_path, run, ema):
    hooks = dict(custom_hooks=[dict(type='EMAHook', momentum=0.3)])
    changes = {**DISTILL_LINES, **(hooks if ema else {})}
    first = run(
        tiny_recipes.recipe(tmp_path, tiny_recipes.distiller(), **changes)
    )
    trained = weights(first)
    checkpoint = read_checkpoint(tmp_path / 'work/epoch_2.pth')
    for key, value in checkpoint['distill_state_dict'].items():
        assert torch.equal(value, trained[key]), key
    ema_keys = checkpoint.get('ema_state_dict', {})
    assert not any('distill' in key for key in ema_keys)
    assert bool(ema_keys) == ema
    seen = {}

    class Remember(Hook):
        def before_train(self, runner):
            seen.update(weights(runner))

    config = tiny_recipes.recipe(
        tmp_path, tiny_recipes.distiller(), epochs=3, **changes
    )
    config.resume = True
    config.experiment_name = f'resume_{ema}_{id(config)}'
    runner = Runner.from_cfg(config)
    runner.register_hook(Remember())
    runner.train()
    assert runner.epoch == 3
    for key, value in trained.items():
        assert torch.equal(seen[key], value), key
    assert runner.model._step == 6


def test_interrupted_write_leaves_the_previous_file(tmp_path, monkeypatch):
    backend = checkpoint_hook.AtomicLocalBackend()
    path = tmp_path / 'folder/file.pth'
    backend.put(b'old', path)

    def killed(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint_hook.os, 'fsync', killed)
    with pytest.raises(KeyboardInterrupt):
        backend.put(b'new', path)
    assert path.read_bytes() == b'old'
    assert [p.name for p in path.parent.iterdir()] == ['file.pth']


def test_old_checkpoints_go_only_after_the_new_one(tmp_path, run, monkeypatch):
    config = tiny_recipes.recipe(
        tmp_path, tiny_recipes.distiller(), epochs=3, **DISTILL_LINES
    )
    config.default_hooks.checkpoint.max_keep_ckpts = 1
    config.default_hooks.checkpoint.save_best = 'auto'
    put = checkpoint_hook.AtomicLocalBackend.put
    held = []

    def watch(self, obj, filepath):
        held.append({p.name for p in (tmp_path / 'work').glob('*.pth')})
        put(self, obj, filepath)

    monkeypatch.setattr(checkpoint_hook.AtomicLocalBackend, 'put', watch)
    run(config)
    # From the second write on, a whole checkpoint lies there at any time.
    assert len(held) >= 3 and all(held[1:])
    names = {p.name for p in (tmp_path / 'work').glob('*.pth')}
    assert 'epoch_3.pth' in names
    assert len([n for n in names if n.startswith('epoch')]) == 1
    assert len([n for n in names if n.startswith('best')]) == 1
    last = Path((tmp_path / 'work/last_checkpoint').read_text())
    assert last.is_file()
