import argparse
import json
import os
import runpy
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import pytest
from filelock import FileLock
from mmengine.config import DictAction
from recipe_files import ROOT, run_tool
from stand_in_tools import write_stand_ins

from mmdiffkd.analysis import training
from mmdiffkd.analysis.training import Run

TOOL = 'analysis_tools/compare_methods.py'
VARIANTS = ROOT / 'tools/analysis_tools/variants'


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """A folder with stand-ins for the tools and two configs."""
    write_stand_ins(tmp_path)
    monkeypatch.setattr(training, 'TOOLS', tmp_path)
    return tmp_path


def test_metric_is_the_packages(fake, monkeypatch, capsys):
    config = fake / 'plain.py'
    config.write_text(config.read_text() + "\ndefault_scope = 'mmdet'")
    for script in (fake / 'train.py', fake / 'test.py'):
        text = script.read_text()
        script.write_text(text.replace('accuracy/top1', 'coco/bbox_mAP'))
    arguments = [str(config), '--seeds', '2', '--work-dir', str(fake / 'out')]
    run_tool(monkeypatch, TOOL, *arguments)
    out = capsys.readouterr().out
    assert '|  | coco/bbox_mAP |' in out
    # A fraction, in per cent: of 40 and 41.
    assert '| plain | 4050.00 |' in out


def test_no_training_outlives_the_tool(fake):
    script = fake / 'tool.py'
    script.write_text(
        'import pathlib, runpy\n'
        'from mmdiffkd.analysis import training\n'
        f'training.TOOLS = pathlib.Path({str(fake)!r})\n'
        f'runpy.run_path({str(ROOT / "tools" / TOOL)!r}, None, "__main__")\n'
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
    sorted(VARIANTS.glob('*.py')),
    ids=lambda p: p.stem,
)
def test_variants_survive_the_command_line(path):
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    found = runpy.run_path(str(path))
    rows = [*found['variants'].values(), *found.get('val', {}).values()]
    for config, options in rows:
        command = Run(config, Path('folder'), options).command
        assert (ROOT / config).is_file()
        if options:
            words = command[command.index('--cfg-options') :]
            assert parser.parse_args(words).cfg_options == options


@pytest.mark.parametrize('jobs', ['1', '2'])
def test_command(fake, monkeypatch, capsys, jobs):
    arguments = [
        *(str(fake / name) for name in ('plain.py', 'distiller.py')),
        *('--labels', 'alone', 'distilled', '--seeds', '2', '--jobs', jobs),
        *('--work-dir', str(fake / 'out'), '--teacher-checkpoint', 't.pth'),
    ]
    run_tool(monkeypatch, TOOL, *arguments)
    out = capsys.readouterr().out
    assert '[4/4]' in out
    assert '| alone | 40.50 | 0.71 |  |  | 1.00x |' in out
    assert '| distilled | 40.50 | 0.71 | +0.00 (+0.00 to +0.00) |' in out
    assert 'last epoch (not the best one)' in out
    written = (fake / 'out/test.md').read_text()
    assert f'python {TOOL}' in written


def test_two_comparisons_do_not_share_a_folder(fake, monkeypatch):
    work_dir = fake / 'out'
    arguments = str(fake / 'plain.py'), '--work-dir', str(work_dir)
    arguments += '--labels', 'alone', '--seeds', '1'
    lock = FileLock(work_dir / 'compare_methods.lock')
    refused = pytest.raises(SystemExit, match='another comparison.*choose')
    with lock, refused:
        run_tool(monkeypatch, TOOL, *arguments)
    assert not (work_dir / 'alone').exists()
    run_tool(monkeypatch, TOOL, *arguments)
    assert (work_dir / 'alone').is_dir()


@pytest.mark.parametrize('split', ['val', 'tuning'])
def test_the_validation_split(fake, monkeypatch, capsys, split):
    arguments = [str(fake / 'plain.py'), '--work-dir', str(fake / 'out')]
    arguments += ['--seeds', '1', '--split', split]
    with (
        pytest.warns(FutureWarning, match='write --split val')
        if split == 'tuning'
        else nullcontext()
    ):
        run_tool(monkeypatch, TOOL, *arguments)
    # Of the last epoch, not the best one.
    assert '| plain | 60.00 |' in capsys.readouterr().out
    assert '1 seeds, val scenes' in (fake / 'out/val.md').read_text()


def test_a_metric_that_was_not_logged(fake, monkeypatch):
    arguments = [str(fake / 'plain.py'), '--work-dir', str(fake / 'out')]
    with pytest.raises(SystemExit, match='top-1.*accuracy/top1'):
        run_tool(monkeypatch, TOOL, *arguments, '--metric', 'top-1')


def test_command_with_variants_and_a_failure(fake, monkeypatch, capsys):
    config = str(fake / 'plain.py')
    grid = fake / 'grid.py'
    grid.write_text(
        f"variants = {{'good': ({config!r}, {{}}), "
        f"'bad': ({config!r}, {{'crash': True}})}}"
    )
    arguments = ['--variants', str(grid), '--seeds', '1']
    arguments += ['--work-dir', str(fake / 'out'), '--split', 'val']
    with pytest.raises(SystemExit, match='1 of 2 runs failed'):
        run_tool(monkeypatch, TOOL, *arguments)
    assert 'about to crash' in capsys.readouterr().out
    assert (fake / 'out/good/seed_0/result.json').is_file()
    assert not (fake / 'out/val.md').exists()


def test_some_of_the_rows(fake, monkeypatch, capsys):
    arguments = [str(fake / 'plain.py'), str(fake / 'distiller.py')]
    arguments += ['--labels', 'alone, 10 %', 'alone, 100 %', '--seeds', '1']
    arguments += ['--work-dir', str(fake / 'out'), '--rows', ', 10 %']
    run_tool(monkeypatch, TOOL, *arguments)
    out = capsys.readouterr().out
    assert '[1/1] alone, 10 %' in out
    assert not (fake / 'out/alone-100').exists()


def test_what_a_table_has_is_not_trained_again(fake, monkeypatch, capsys):
    table = fake / 'known.csv'
    table.write_text('method,seed 0,seed 1\nplain,10.0,20.0\n')
    arguments = [str(fake / 'plain.py'), '--work-dir', str(fake / 'out')]
    arguments += ['--known', str(table), '--seeds', '3']
    run_tool(monkeypatch, TOOL, *arguments)
    out = capsys.readouterr().out
    assert '[1/1] plain, seed 2' in out and '2 figures are those of' in out
    # 10 and 20, and the 42 of seed 2.
    assert '| plain | 24.00 |' in out
    assert not (fake / 'out/plain/seed_0').exists()


def test_a_table_of_other_rows_is_refused(fake, monkeypatch):
    table = fake / 'known.csv'
    table.write_text('method,seed 0\nDiffKD,10.0\n')
    arguments = [str(fake / 'plain.py'), '--work-dir', str(fake / 'out')]
    with pytest.raises(SystemExit, match='none of these rows .* are DiffKD'):
        run_tool(monkeypatch, TOOL, *arguments, '--known', str(table))
    assert not (fake / 'out').exists()


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['a.py', '--known', 'b.csv'], '--known b.csv: no table'),
        ([], 'at least one CONFIG'),
        (['a.py', '--rows', 'b'], r"--rows 'b': no label holds it.* a\."),
        (['a.py', '--labels', 'a', 'b'], '2 methods'),
        (['a.py', 'b/a.py'], 'label of its own'),
        (['a.py', 'b.py', '--labels', 'x y', 'x/y'], 'label of its own'),
    ],
)
def test_bad_command_lines(monkeypatch, arguments, message):
    with pytest.raises(SystemExit, match=message):
        run_tool(monkeypatch, TOOL, *arguments)


@pytest.mark.slow
@pytest.mark.parametrize('split', ['val', 'test'])
def test_real_trainings(tmp_path, split):
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
    config = 'configs/baseline/resnet14-w4_1xb64-4e_digit-scenes.py'
    options = {'train_cfg.max_epochs': 1, 'model.init_cfg': None}
    for loader, dataset in (
        ('train_dataloader', 'dataset.dataset'),
        ('val_dataloader', 'dataset'),
        ('test_dataloader', 'dataset'),
    ):
        options[f'{loader}.{dataset}.data_root'] = data / 'cls'
        options[f'{loader}.num_workers'] = 0
    command = [sys.executable, str(ROOT / 'tools' / TOOL), config, config]
    command += ['--labels', 'one', 'two', '--seeds', '1', '--split', split]
    command += ['--work-dir', str(tmp_path / 'out'), '--cfg-options']
    command += [f'{key}={value}' for key, value in options.items()]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert '| two |' in done.stdout and '| +0.00 |' in done.stdout
    result = tmp_path / 'out/two/seed_0/result.json'
    assert json.loads(result.read_text())['metrics']['accuracy/top1'] >= 0
    assert result.with_name('test.json').is_file() == (split == 'test')
