import subprocess
import sys

import pytest
import tiny_recipes
import torch
from killed_runs import broken_files, compare
from recipe_files import ROOT
from tiny_recipes import DISTILL_LINES


def kill(tmp_path, kills, *flags):
    student = tiny_recipes.classifier(drop_path_rate=0.5)
    config = tiny_recipes.recipe(
        tmp_path,
        tiny_recipes.distiller(student),
        epochs=4,
        images=8,
        num_workers=2,
        **DISTILL_LINES,
    )
    config.dump(tmp_path / 'config.py')
    return subprocess.run(
        [
            sys.executable,
            str(ROOT / 'tools/misc/crash_test.py'),
            str(tmp_path / 'config.py'),
            f'--work-dir={tmp_path / "crashes"}',
            f'--kills={kills}',
            *flags,
        ],
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_two_kills(tmp_path):
    result = kill(tmp_path, 2, '--fork')
    assert result.returncode == 0, result.stdout + result.stderr
    assert '2 kills, 1 of them aimed at the writing' in result.stdout
    assert 'every run the same as the uninterrupted one' in result.stdout


@pytest.mark.slow
def test_five_kills_of_fresh_processes(tmp_path):
    result = kill(tmp_path, 5)
    assert result.returncode == 0, result.stdout + result.stderr
    assert '5 kills, 2 of them aimed at the writing' in result.stdout


def test_differences_are_found():
    def checkpoint(weight=1.0, rate=0.1, **more):
        return dict(
            state_dict=dict(a=torch.tensor([0.0, weight]), **more),
            distill_state_dict={},
            optimizer=dict(param_groups=[dict(lr=rate)]),
        )

    assert compare(checkpoint(), checkpoint()) == []
    assert compare(checkpoint(), checkpoint(2.0)) == ['state_dict.a']
    assert compare(checkpoint(), checkpoint(b=torch.ones(1))) == [
        'state_dict.b'
    ]
    assert compare(checkpoint(), checkpoint(rate=0.2)) == [
        'optimizer.param_groups.0.lr'
    ]


def test_broken_files_are_found(tmp_path):
    whole = tmp_path / 'epoch_1.pth'
    torch.save({}, whole)
    pointer = tmp_path / 'last_checkpoint'
    pointer.write_text(str(whole))
    assert broken_files(tmp_path) == []
    cut = tmp_path / 'best_epoch_1.pth'
    cut.write_bytes(whole.read_bytes()[:-5])
    assert broken_files(tmp_path) == [str(cut)]
    cut.unlink()
    whole.unlink()
    (found,) = broken_files(tmp_path)
    assert found.startswith(str(pointer))
