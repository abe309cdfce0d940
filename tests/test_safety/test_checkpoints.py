import os
import resource
import shutil
from pathlib import Path

import pytest
import tiny_recipes
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from safetensors.torch import save_file
from tiny_recipes import train

from mmdiffkd.safety.atomic_files import AtomicLocalBackend
from mmdiffkd.safety.checkpoints import CheckpointHook, _DeferredRemoval
from mmdiffkd.utils import read_checkpoint


def test_old_checkpoints_go_only_after_the_new_one(tmp_path, monkeypatch):
    config = tiny_recipes.distill_recipe(tmp_path, epochs=3)
    config.default_hooks.checkpoint.max_keep_ckpts = 1
    config.default_hooks.checkpoint.save_best = 'auto'
    put = AtomicLocalBackend.put
    held = []

    def watch(self, obj, filepath):
        held.append({p.name for p in (tmp_path / 'work').glob('*.pth')})
        put(self, obj, filepath)

    monkeypatch.setattr(AtomicLocalBackend, 'put', watch)
    train(config)
    # From the second write on, a whole checkpoint lies there at any time.
    assert len(held) >= 3 and all(held[1:])
    names = {p.name for p in (tmp_path / 'work').glob('*.pth')}
    assert 'epoch_3.pth' in names
    assert len([n for n in names if n.startswith('epoch')]) == 1
    assert len([n for n in names if n.startswith('best')]) == 1
    last = Path((tmp_path / 'work/last_checkpoint').read_text())
    assert last.is_file()


def small(root, **changes):
    """A distiller of one checkpoint, the newest, and a scheduler by steps."""
    config = tiny_recipes.distill_recipe(root, epochs=3, images=10, **changes)
    config.param_scheduler = [
        dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=9)
    ]
    config.val_cfg = config.val_dataloader = config.val_evaluator = None
    config.train_cfg.pop('val_interval')
    return config


def copy_checkpoint(source, work):
    work.mkdir()
    shutil.copy(source, work)
    (work / 'last_checkpoint').write_text(str(work / source.name))


class Rates(Hook):
    """Writes down the learning rate of every iteration."""

    def __init__(self):
        self.seen = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        rate = runner.optim_wrapper.get_lr()['lr'][0]
        self.seen.append((runner.epoch, runner.iter, rate))


def by_iterations(root, interval, **changes):
    config = small(root, **changes)
    config.default_hooks.checkpoint.update(by_epoch=False, interval=interval)
    return config


# 3 iterations an epoch: 5 is the second of the second epoch, 6 its last.
@pytest.mark.parametrize(
    'saved, epoch, goes_on', [(5, 1, 3), (6, 2, 6)], ids=['within', 'end']
)
def test_a_run_goes_on_with_a_whole_epoch(tmp_path, saved, epoch, goes_on):
    straight, resumed = Rates(), Rates()
    train(by_iterations(tmp_path, saved), straight)
    assert [i for _, i, _ in straight.seen] == list(range(9))
    assert len({rate for *_, rate in straight.seen}) == 9
    checkpoint = tmp_path / f'work/iter_{saved}.pth'
    copy_checkpoint(checkpoint, tmp_path / 'other')
    config = by_iterations(tmp_path, saved, work_dir=str(tmp_path / 'other'))
    config.resume = True
    train(config, resumed)
    assert resumed.seen == straight.seen[goes_on:]
    # From the weights of then, all the same.
    start = read_checkpoint(checkpoint)
    assert start['distill_state_dict']['distill.step'] == saved
    assert (start['meta']['epoch'], start['meta']['iter']) == (epoch, saved)


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    root = tmp_path_factory.mktemp('finished')
    train(small(root))
    return root


@pytest.fixture
def work(finished, tmp_path):
    """A copy of the work directory of a finished run."""
    shutil.copytree(finished / 'work', tmp_path / 'work')
    pointer = tmp_path / 'work/last_checkpoint'
    pointer.write_text(str(tmp_path / 'work/epoch_3.pth'))
    return tmp_path / 'work'


def resume(finished, work, checkpoint=None):
    config = small(finished, work_dir=str(work))
    config.update(resume=True, load_from=checkpoint)
    return train(config)


@pytest.mark.parametrize(
    ('broken', 'reason'),
    [
        ('epoch_3.pth', 'is truncated'),
        ('last_checkpoint', 'is truncated, or is no checkpoint'),
    ],
)
def test_a_broken_file_is_refused_and_another_offered(
    finished, work, broken, reason
):
    path = work / broken
    path.write_bytes(path.read_bytes()[: -100 * (broken == 'epoch_3.pth')])
    newest = 'epoch_2.pth' if broken == 'epoch_3.pth' else 'epoch_3.pth'
    os.utime(work / 'epoch_1.pth', (0, 0))
    with pytest.raises(
        ValueError, match=rf'{path}.* {reason}.*--resume {work / newest}'
    ):
        resume(finished, work)


def test_weights_alone_are_refused_and_another_offered(finished, work):
    path = work / 'epoch_3.pth'
    save_file(read_checkpoint(path)['state_dict'], path)
    message = rf'{path}.* has weights but not .*--resume {work}/epoch_[12].pth'
    with pytest.raises(ValueError, match=message):
        resume(finished, work)


def test_a_missing_file_is_refused_and_another_offered(finished, work):
    (work / 'epoch_3.pth').unlink()
    with pytest.raises(ValueError, match=r'epoch_3.*not there.*epoch_2\.pth'):
        resume(finished, work)


def test_a_foreign_file_is_refused_and_another_offered(finished, work):
    foreign = work / 'foreign.pth'
    foreign.write_text('an error page of a server')
    with pytest.raises(ValueError, match=rf'{foreign}.*epoch_3\.pth'):
        resume(finished, work, str(foreign))


def test_bare_weights_are_no_run_to_resume(finished, work, build):
    weights = work / 'weights.pth'
    torch.save(build(tiny_recipes.classifier()).state_dict(), weights)
    with pytest.raises(ValueError, match=rf'{weights}.*as `load_from`'):
        resume(finished, work, str(weights))


def test_nothing_to_resume_is_no_error(finished, tmp_path):
    assert resume(finished, tmp_path / 'new').iter == 9


class NoRoom(Hook):
    """Fails real writes of a checkpoint's size, in the second epoch."""

    priority = 'LOW'

    def after_train_epoch(self, runner):
        if runner.epoch == 1:
            limits = (50_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def of_one_checkpoint(finished, tmp_path):
    config = small(finished, work_dir=str(tmp_path / 'work'))
    config.default_hooks.checkpoint.max_keep_ckpts = 1
    return config


def test_no_room_for_a_checkpoint(finished, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(OSError, match=r'not written.*epoch_2\.pth'):
            train(of_one_checkpoint(finished, tmp_path), NoRoom())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    files = {p.name for p in (tmp_path / 'work').iterdir() if p.is_file()}
    assert {n for n in files if 'pth' in n} == {'epoch_1.pth'}
    again = of_one_checkpoint(finished, tmp_path)
    again.resume = True
    rates = Rates()
    train(again, rates)
    assert rates.seen[0][:2] == (1, 3)


def test_what_a_killed_run_left_is_removed(finished, tmp_path, monkeypatch):
    def checkpoints():
        return {p.name for p in (tmp_path / 'work').glob('*.pth')}

    flush = _DeferredRemoval.flush

    def killed(self, *arguments):
        if self.outdated:
            raise KeyboardInterrupt
        flush(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(_DeferredRemoval, 'flush', killed)
        with pytest.raises(KeyboardInterrupt):
            train(of_one_checkpoint(finished, tmp_path))
    assert checkpoints() == {'epoch_1.pth', 'epoch_2.pth'}
    temporary = tmp_path / 'work/.epoch_2.pth.1.tmp'
    temporary.touch()
    again = of_one_checkpoint(finished, tmp_path)
    again.resume = True
    seen = []

    class Look(Hook):
        def before_train_epoch(self, runner):
            seen.append(checkpoints())

    train(again, Look())
    assert seen == [{'epoch_2.pth'}]
    assert checkpoints() == {'epoch_3.pth'}
    assert not temporary.exists()


def test_another_runs_files_stay(tmp_path):
    theirs, ours = tmp_path / 'theirs/best.pth', tmp_path / 'ours/best.pth'
    for path in (theirs, ours):
        path.parent.mkdir()
        path.touch()
    backend = _DeferredRemoval(AtomicLocalBackend())
    backend.remove(str(theirs)), backend.remove(str(ours))
    assert ours.exists()
    backend.flush(str(ours.parent), kept=())
    assert theirs.exists() and not ours.exists()


def test_the_switch_is_a_switch():
    with pytest.raises(ValueError, match="exact_resume.*'yes'"):
        CheckpointHook(exact_resume='yes')


HOOKS.register_module(name='SplitHook', module=CheckpointHook, force=True)


@pytest.mark.parametrize('ema', [False, True])
def test_tensors_of_a_prefix_lie_under_a_key_of_their_own(tmp_path, ema):
    hooks = dict(custom_hooks=[dict(type='EMAHook', momentum=0.3)])
    split = {'head.': 'head_state_dict', 'no.': 'no_state_dict'}

    def recipe(epochs, **changes):
        return tiny_recipes.recipe(
            tmp_path,
            tiny_recipes.classifier(),
            epochs,
            default_hooks=dict(checkpoint=dict(type='SplitHook', split=split)),
            **(hooks if ema else {}),
            **changes,
        )

    trained = train(recipe(2)).model.state_dict()
    checkpoint = read_checkpoint(tmp_path / 'work/epoch_2.pth')
    names = {k for k in trained if k.startswith('head.')}
    assert checkpoint['head_state_dict'].keys() == names
    assert checkpoint['no_state_dict'] == {}
    for key in ('state_dict', 'ema_state_dict'):
        assert not [k for k in checkpoint.get(key, ()) if 'head.' in k]
    assert ('ema_state_dict' in checkpoint) == ema

    class Begun(Hook):
        def before_train(self, runner):
            self.state = {
                k: v.clone() for k, v in runner.model.state_dict().items()
            }

    begun = Begun()
    train(recipe(3, resume=True), begun)
    assert begun.state.keys() == trained.keys()
    for name, value in trained.items():
        assert torch.equal(begun.state[name], value), name
