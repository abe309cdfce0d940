import json

import pytest
from stand_in_tools import TRAIN, calls, write_stand_ins

from mmdiffkd.analysis import training
from mmdiffkd.analysis.training import (
    ChildFailed,
    OtherSettings,
    Run,
    evaluate,
    train,
)


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """A folder with stand-ins for the tools and two configs."""
    write_stand_ins(tmp_path)
    monkeypatch.setattr(training, 'TOOLS', tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    'name', ['train.py', 'test.py', 'dataset_converters/digit_scenes.py']
)
def test_tools_are_found(name):
    assert (training.TOOLS / name).is_file()


def test_train_and_read_again(fake):
    run = Run(str(fake / 'plain.py'), fake / 'run', {'randomness.seed': 4})
    lines = []
    result = train(run, on_line=lines.append)
    assert lines == ['Epoch(val) [2][1/1]']
    # The last epoch's figure, not the best; the median time.
    assert result['metrics']['accuracy/top1'] == 64.0
    assert result['seconds_per_step'] == 0.2
    assert not result['resumed']
    assert train(run) == result
    assert len(calls(fake)) == 1


def test_other_settings_are_not_mixed_up(fake):
    config = fake / 'plain.py'
    run = Run(str(config), fake / 'run', {'randomness.seed': 4})
    train(run)
    other = Run(str(config), fake / 'run', {'randomness.seed': 5})
    with pytest.raises(OtherSettings, match='other settings'):
        train(other)
    # The same command after an edit of the config is another run as well.
    config.write_text("model = dict(type='A', depth=50)")
    with pytest.raises(OtherSettings, match='other settings'):
        train(run)


def test_stopped_runs_are_resumed_or_restarted(fake):
    run = Run(str(fake / 'plain.py'), fake / 'run', {'randomness.seed': 0})
    train(run)
    result = run.folder / 'result.json'
    result.unlink()
    (run.folder / '2026').rename(run.folder / '2025')
    (run.folder / 'last_checkpoint').write_text('epoch_1.pth')
    assert train(run)['resumed']
    assert calls(fake)[1].endswith('--resume')

    result.unlink()
    (run.folder / 'last_checkpoint').unlink()
    assert not train(run)['resumed']
    assert not calls(fake)[2].endswith('--resume')
    assert not (run.folder / '2025').exists()


def test_a_run_stopped_before_its_last_validation_starts_again(fake):
    run = Run(str(fake / 'plain.py'), fake / 'run', {'randomness.seed': 0})
    train(run)
    (run.folder / 'result.json').unlink()
    (run.folder / 'last_checkpoint').write_text('epoch_2.pth')
    log = run.folder / '2026/vis_data/scalars.json'
    log.write_text('\n'.join(log.read_text().splitlines()[:-1]) + '\n')
    # MMEngine resumes a run with no epoch left to nothing.
    (fake / 'train.py').write_text(
        f"import sys\nif '--resume' not in sys.argv:\n    exec({TRAIN!r})\n"
    )
    result = train(run)
    assert result['metrics']['accuracy/top1'] == 60.0
    assert not result['resumed']


@pytest.mark.parametrize('config', ['max_epochs=3', 'max_iters=3'])
def test_no_validation_at_the_end_is_an_error(fake, config):
    path = fake / 'plain.py'
    path.write_text(f'train_cfg = dict({config})')
    run = Run(str(path), fake / 'run', {'randomness.seed': 0})
    with pytest.raises(ChildFailed, match='val_interval'):
        train(run)
    assert not (run.folder / 'result.json').exists()


def test_a_folder_of_something_else_is_left_alone(fake):
    run = Run(str(fake / 'plain.py'), fake / 'run', {'randomness.seed': 0})
    run.folder.mkdir()
    (run.folder / 'precious').touch()
    with pytest.raises(OtherSettings, match='something else'):
        train(run)
    assert (run.folder / 'precious').exists()


def test_a_failure_says_what_and_where(fake):
    options = {'randomness.seed': 0, 'crash': True}
    run = Run(str(fake / 'plain.py'), fake / 'run', options)
    with pytest.raises(ChildFailed) as error:
        train(run)
    message = str(error.value)
    assert 'about to crash' in message
    assert 'code 3' in message
    assert str(run.folder / 'train.log') in message
    assert 'crash=True' in message
    assert not (run.folder / 'result.json').exists()


def test_evaluate_and_read_again(fake):
    run = Run(str(fake / 'plain.py'), fake / 'run', {'randomness.seed': 4})
    train(run)
    metrics = evaluate(run)
    assert metrics == {'accuracy/top1': 44.0}
    assert json.loads((run.folder / 'test.json').read_text()) == metrics
    assert evaluate(run) == metrics
    (call,) = calls(fake, 'evaluations')
    assert call.split()[0] == str(run.folder / 'epoch_2.pth')
    assert 'randomness.seed=4' in call


def test_a_failed_evaluation_leaves_no_metrics(fake):
    run = Run(str(fake / 'plain.py'), fake / 'run', {'randomness.seed': 4})
    train(run)
    test = (fake / 'test.py').read_text()
    (fake / 'test.py').write_text(f'{test}\nsys.exit(3)')
    with pytest.raises(ChildFailed, match='code 3'):
        evaluate(run)
    assert not (run.folder / 'test.json').exists()
    # The training is kept.
    (fake / 'test.py').write_text(test)
    assert evaluate(run) and len(calls(fake)) == 1
