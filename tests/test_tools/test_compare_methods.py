import argparse
import csv
import importlib.util
import json
import math
import os
import runpy
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mmengine.config import DictAction
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / 'tools/analysis_tools/compare_methods.py'


@pytest.fixture
def tool(monkeypatch):
    spec = importlib.util.spec_from_file_location('compare_methods', TOOL)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, 'compare_methods', module)
    spec.loader.exec_module(module)
    return module


# A stand-in for tools/train.py: logs what the real one logs, and counts.
TRAIN = """
import json, sys
from pathlib import Path
folder = Path(sys.argv[sys.argv.index('--work-dir') + 1])
with open(folder.parent / 'calls', 'a') as calls:
    calls.write(' '.join(sys.argv[2:]) + chr(10))
options = dict(o.split('=') for o in sys.argv if '=' in o)
if options.get('crash') == 'True':
    print('about to crash')
    (folder / 'last_checkpoint').write_text('epoch_1.pth')
    sys.exit(3)
log = folder / '2026' / 'vis_data' / 'scalars.json'
log.parent.mkdir(parents=True)
seed = int(options['randomness.seed'])
for line in (
    {'loss': 2.0, 'time': 0.5, 'iter': 1, 'step': 1},
    {'loss': 1.0, 'time': 0.1, 'iter': 2, 'step': 2},
    {'loss': 1.0, 'time': 0.2, 'iter': 3, 'step': 3},
    {'accuracy/top1': 99.0, 'step': 1},
    {'accuracy/top1': 60.0 + seed, 'step': 2},
):
    with log.open('a') as file:
        file.write(json.dumps(line) + chr(10))
print('Epoch(val) [2][1/1]')
"""


@pytest.fixture
def fake(tool, tmp_path, monkeypatch):
    """A folder with a stand-in for training and two configs."""
    script = tmp_path / 'train.py'
    script.write_text(TRAIN)
    monkeypatch.setattr(tool, 'TRAIN', script)
    data = (
        "val_dataloader = dict(dataset=dict(data_prefix='test'))\n"
        'train_cfg = dict(by_epoch=True, max_epochs=2)'
    )
    (tmp_path / 'plain.py').write_text(f"model = dict(type='A')\n{data}")
    (tmp_path / 'distiller.py').write_text(
        "model = dict(type='B', teacher=dict(config='a', checkpoint='b'))"
        f'\n{data}'
    )
    return tmp_path


def calls(folder):
    return (folder / 'calls').read_text().splitlines()


def test_summary_by_hand(tool):
    summary = tool.summarise(
        {'a': [60.0, 61.0, 62.0], 'b': [63.0, 63.0, 66.0]}
    )
    assert summary['a'] == {'mean': 61.0, 'sd': 1.0}
    # The differences are 3, 2, 4: mean 3, deviation 1; Student's t for 2
    # degrees of freedom at 97.5 % is 4.302653, over sqrt(3) 2.484138.
    assert summary['b'] == pytest.approx(
        {
            'mean': 64.0,
            'sd': math.sqrt(3),
            'gain': 3.0,
            'low': 3 - 2.484138,
            'high': 3 + 2.484138,
        }
    )


def test_pairing_matters(tool):
    """A gain that is the same for each seed has no spread."""
    summary = tool.summarise({'a': [50.0, 70.0], 'b': [54.0, 74.0]})
    assert summary['b']['low'] == summary['b']['high'] == 4.0


def test_one_seed_has_no_interval(tool):
    summary = tool.summarise({'a': [60.0], 'b': [64.0]})
    assert summary['b']['gain'] == 4.0
    assert math.isnan(summary['a']['sd']) and math.isnan(summary['b']['low'])


def test_unequal_numbers_of_seeds_are_refused(tool):
    with pytest.raises(ValueError):
        tool.summarise({'a': [60.0, 61.0], 'b': [64.0]})


def test_tables(tool, tmp_path):
    markdown = tool.write_tables(
        {'alone': [60.0, 61.0, 62.0], 'DiffKD': [63.0, 63.0, 66.0]},
        {'alone': [0.1, 0.1, 0.2], 'DiffKD': [0.2, 0.3, 0.3]},
        range(3),
        'accuracy/top1',
        'A note.',
        tmp_path / 'new' / 'table',
    )
    assert markdown.splitlines()[2:] == [
        '| alone | 61.00 | 1.00 |  | 1.00x |',
        '| DiffKD | 64.00 | 1.73 | +3.00 (+0.52 to +5.48) | 2.17x |',
        '',
        'A note.',
    ]
    assert (tmp_path / 'new/table.md').read_text() == markdown
    with (tmp_path / 'new/table.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert [row['method'] for row in rows] == ['alone', 'DiffKD']
    assert [float(rows[1][f'seed {s}']) for s in range(3)] == [63, 63, 66]
    assert float(rows[1]['gain']) == 3.0 and rows[0]['gain'] == ''
    assert Image.open(tmp_path / 'new/table.png').size[0] > 500


def test_tables_of_one_seed(tool, tmp_path):
    markdown = tool.write_tables(
        {'a': [60.0], 'b': [58.5]},
        {'a': [1.0], 'b': [1.0]},
        [0],
        'accuracy/top1',
        '',
        tmp_path / 'table',
    )
    assert '| b | 58.50 |  | -1.50 | 1.00x |' in markdown


def test_plan(tool, fake):
    plain, distiller = str(fake / 'plain.py'), str(fake / 'distiller.py')
    runs = tool.plan(
        {'a b/c': (plain, {}), 'd': (distiller, {'x': 1})},
        range(2),
        fake / 'out',
        'tuning',
        't.pth',
        {'x': 0, 'y': 0},
    )
    # A seed is finished for all methods before the next begins.
    assert list(runs) == [
        ('a b/c', 0),
        ('d', 0),
        ('a b/c', 1),
        ('d', 1),
    ]
    assert runs['a b/c', 0].folder == fake / 'out/a-b-c/seed_0'
    data = {'val_dataloader.dataset.data_prefix': 'tuning'}
    assert runs['a b/c', 0].options == {
        'x': 0,
        'y': 0,
        'randomness.seed': 0,
        **data,
    }
    assert runs['d', 1].options == {
        'x': 1,
        'y': 0,
        'randomness.seed': 1,
        'model.teacher.checkpoint': 't.pth',
        **data,
    }


@pytest.mark.parametrize(
    'name, expected',
    [
        (
            'resnet14-w4_1xb64-20e_digit-scenes',
            {'val_dataloader.dataset.data_prefix': 'tuning'},
        ),
        (
            'retinanet-w8_1xb16-6e_digit-scenes-det',
            {
                'val_dataloader.dataset.ann_file': (
                    'annotations/instances_tuning.json'
                ),
                'val_dataloader.dataset.data_prefix.img': 'tuning',
                'val_evaluator.ann_file': (
                    'data/digit_scenes/det/annotations/instances_tuning.json'
                ),
            },
        ),
        (
            'pspnet-w8_1xb8-6e_digit-scenes-seg',
            {
                'val_dataloader.dataset.data_prefix.img_path': (
                    'leftImg8bit/tuning'
                ),
                'val_dataloader.dataset.data_prefix.seg_map_path': (
                    'gtFine/tuning'
                ),
            },
        ),
    ],
)
def test_split_of_every_task(tool, name, expected):
    config = tool.load_config(ROOT / 'configs/baseline' / f'{name}.py')
    assert tool.evaluated_on(config, 'tuning') == expected


def test_no_other_split(tool):
    config = tool.load_config({'val_dataloader': {'dataset': {'a': 'test'}}})
    with pytest.raises(SystemExit, match='no tuning split'):
        tool.evaluated_on(config, 'tuning')


def test_metric_is_the_packages(tool, fake, monkeypatch, capsys):
    config = fake / 'plain.py'
    config.write_text(config.read_text() + "\ndefault_scope = 'mmdet'")
    script = fake / 'train.py'
    script.write_text(TRAIN.replace('accuracy/top1', 'coco/bbox_mAP'))
    arguments = [str(config), '--seeds', '2', '--work-dir', str(fake / 'out')]
    run_main(tool, monkeypatch, *arguments)
    out = capsys.readouterr().out
    assert '| | coco/bbox_mAP |' in out
    # A fraction, in per cent: of 60 and 61.
    assert '| plain | 6050.00 |' in out


def test_train_and_read_again(tool, fake):
    run = tool.Run(
        str(fake / 'plain.py'), fake / 'run', {'randomness.seed': 4}
    )
    lines = []
    result = tool.train(run, on_line=lines.append)
    assert lines == ['Epoch(val) [2][1/1]']
    # The last epoch's figure, not the best; the median time.
    assert result['metrics']['accuracy/top1'] == 64.0
    assert result['seconds_per_step'] == 0.2
    assert not result['resumed']
    assert tool.train(run) == result
    assert len(calls(fake)) == 1


def test_other_settings_are_not_mixed_up(tool, fake):
    config = fake / 'plain.py'
    run = tool.Run(str(config), fake / 'run', {'randomness.seed': 4})
    tool.train(run)
    other = tool.Run(str(config), fake / 'run', {'randomness.seed': 5})
    with pytest.raises(tool.OtherSettings, match='other settings'):
        tool.train(other)
    # The same command after an edit of the config is another run as well.
    config.write_text("model = dict(type='A', depth=50)")
    with pytest.raises(tool.OtherSettings, match='other settings'):
        tool.train(run)


def test_stopped_runs_are_resumed_or_restarted(tool, fake):
    run = tool.Run(
        str(fake / 'plain.py'), fake / 'run', {'randomness.seed': 0}
    )
    tool.train(run)
    result = run.folder / 'result.json'
    result.unlink()
    (run.folder / '2026').rename(run.folder / '2025')
    (run.folder / 'last_checkpoint').write_text('epoch_1.pth')
    assert tool.train(run)['resumed']
    assert calls(fake)[1].endswith('--resume')

    result.unlink()
    (run.folder / 'last_checkpoint').unlink()
    assert not tool.train(run)['resumed']
    assert not calls(fake)[2].endswith('--resume')
    assert not (run.folder / '2025').exists()


def test_a_run_stopped_before_its_last_validation_starts_again(tool, fake):
    run = tool.Run(
        str(fake / 'plain.py'), fake / 'run', {'randomness.seed': 0}
    )
    tool.train(run)
    (run.folder / 'result.json').unlink()
    (run.folder / 'last_checkpoint').write_text('epoch_2.pth')
    log = run.folder / '2026/vis_data/scalars.json'
    log.write_text('\n'.join(log.read_text().splitlines()[:-1]) + '\n')
    # MMEngine resumes a run with no epoch left to nothing.
    tool.TRAIN.write_text(
        f"import sys\nif '--resume' not in sys.argv:\n    exec({TRAIN!r})\n"
    )
    result = tool.train(run)
    assert result['metrics']['accuracy/top1'] == 60.0
    assert not result['resumed']


@pytest.mark.parametrize('config', ['max_epochs=3', 'max_iters=3'])
def test_no_validation_at_the_end_is_an_error(tool, fake, config):
    path = fake / 'plain.py'
    path.write_text(f'train_cfg = dict({config})')
    run = tool.Run(str(path), fake / 'run', {'randomness.seed': 0})
    with pytest.raises(tool.ChildFailed, match='val_interval'):
        tool.train(run)
    assert not (run.folder / 'result.json').exists()


def test_no_training_outlives_the_tool(fake):
    script = fake / 'tool.py'
    script.write_text(
        TOOL.read_text().replace(
            "Path(__file__).resolve().parents[1] / 'train.py'",
            repr(str(fake / 'train.py')),
        )
    )
    (fake / 'train.py').write_text(
        'import os, pathlib, time\n'
        f"pathlib.Path({str(fake)!r}, 'child').write_text(str(os.getpid()))\n"
        'time.sleep(600)\n'
    )
    command = [sys.executable, str(script), str(fake / 'plain.py')]
    command += ['--work-dir', str(fake / 'out'), '--metric', 'accuracy/top1']
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        while not (fake / 'child').is_file() or not (
            child := (fake / 'child').read_text()
        ):
            assert process.poll() is None
            time.sleep(0.05)
        process.terminate()
        assert 'Start the same command again' in process.communicate()[1]
    finally:
        process.kill()
    with pytest.raises(ProcessLookupError):
        os.kill(int(child), 0)


@pytest.mark.parametrize(
    'path',
    sorted(TOOL.with_name('variants').glob('*.py')),
    ids=lambda p: p.stem,
)
def test_variants_survive_the_command_line(tool, path):
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    variants = runpy.run_path(str(path))['variants']
    for config, options in variants.values():
        command = tool.Run(config, Path('folder'), options).command
        assert (ROOT / config).is_file()
        if options:
            words = command[command.index('--cfg-options') :]
            assert parser.parse_args(words).cfg_options == options


def test_a_folder_of_something_else_is_left_alone(tool, fake):
    run = tool.Run(
        str(fake / 'plain.py'), fake / 'run', {'randomness.seed': 0}
    )
    run.folder.mkdir()
    (run.folder / 'precious').touch()
    with pytest.raises(tool.OtherSettings, match='something else'):
        tool.train(run)
    assert (run.folder / 'precious').exists()


def test_a_failure_says_what_and_where(tool, fake):
    options = {'randomness.seed': 0, 'crash': True}
    run = tool.Run(str(fake / 'plain.py'), fake / 'run', options)
    with pytest.raises(tool.ChildFailed) as error:
        tool.train(run)
    message = str(error.value)
    assert 'about to crash' in message
    assert 'code 3' in message
    assert str(run.folder / 'train.log') in message
    assert 'crash=True' in message
    assert not (run.folder / 'result.json').exists()


def run_main(tool, monkeypatch, *arguments):
    monkeypatch.setattr(sys, 'argv', ['compare_methods.py', *arguments])
    tool.main()


@pytest.mark.parametrize('jobs', ['1', '2'])
def test_command(tool, fake, monkeypatch, capsys, jobs):
    arguments = [
        *(str(fake / name) for name in ('plain.py', 'distiller.py')),
        *('--labels', 'alone', 'distilled', '--seeds', '2', '--jobs', jobs),
        *('--work-dir', str(fake / 'out'), '--teacher-checkpoint', 't.pth'),
    ]
    run_main(tool, monkeypatch, *arguments)
    out = capsys.readouterr().out
    assert '[4/4]' in out
    assert '| alone | 60.50 | 0.71 |  | 1.00x |' in out
    assert '| distilled | 60.50 | 0.71 | +0.00 (+0.00 to +0.00) |' in out
    assert 'last epoch (not the best one)' in out
    written = (fake / 'out/test.md').read_text()
    assert 'python compare_methods.py' in written


def test_a_metric_that_was_not_logged(tool, fake, monkeypatch):
    arguments = [str(fake / 'plain.py'), '--work-dir', str(fake / 'out')]
    with pytest.raises(SystemExit, match='top-1.*accuracy/top1'):
        run_main(tool, monkeypatch, *arguments, '--metric', 'top-1')


def test_command_with_variants_and_a_failure(tool, fake, monkeypatch, capsys):
    config = str(fake / 'plain.py')
    grid = fake / 'grid.py'
    grid.write_text(
        f"variants = {{'good': ({config!r}, {{}}), "
        f"'bad': ({config!r}, {{'crash': True}})}}"
    )
    arguments = ['--variants', str(grid), '--seeds', '1']
    arguments += ['--work-dir', str(fake / 'out'), '--split', 'tuning']
    with pytest.raises(SystemExit, match='1 of 2 runs failed'):
        run_main(tool, monkeypatch, *arguments)
    assert 'about to crash' in capsys.readouterr().out
    assert (fake / 'out/tuning/good/seed_0/result.json').is_file()
    assert not (fake / 'out/tuning.md').exists()


@pytest.mark.parametrize(
    'arguments, message',
    [
        ([], 'at least one CONFIG'),
        (['a.py', '--labels', 'a', 'b'], '2 methods'),
        (['a.py', 'b/a.py'], 'label of its own'),
        (['a.py', 'b.py', '--labels', 'x y', 'x/y'], 'label of its own'),
    ],
)
def test_bad_command_lines(tool, monkeypatch, arguments, message):
    with pytest.raises(SystemExit, match=message):
        run_main(tool, monkeypatch, *arguments)


@pytest.mark.slow
def test_real_trainings(tmp_path):
    """The same config under two names: the same seed gives the same run."""
    data = tmp_path / 'data'
    subprocess.run(
        [
            *(sys.executable, 'tools/dataset_converters/digit_scenes.py'),
            *('--tasks', 'cls', '--sizes', '256', '50', '50'),
            *('--out', str(data)),
        ],
        cwd=ROOT,
        check=True,
    )
    config = 'configs/baseline/resnet14-w4_1xb64-20e_digit-scenes.py'
    options = {'train_cfg.max_epochs': 1}
    for name in ('train', 'val', 'test'):
        options[f'{name}_dataloader.dataset.data_root'] = data / 'cls'
        options[f'{name}_dataloader.num_workers'] = 0
    command = [sys.executable, str(TOOL), config, config]
    command += ['--labels', 'one', 'two', '--seeds', '1', '--split', 'tuning']
    command += ['--work-dir', str(tmp_path / 'out'), '--cfg-options']
    command += [f'{key}={value}' for key, value in options.items()]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert '| two |' in done.stdout and '| +0.00 |' in done.stdout
    result = tmp_path / 'out/tuning/two/seed_0/result.json'
    assert json.loads(result.read_text())['metrics']['accuracy/top1'] >= 0
