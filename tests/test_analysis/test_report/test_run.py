import re
from pathlib import Path

import pytest
import torch
from report_runs import LINES, distilled, write_run

from mmdiffkd.analysis.report.costs import costs_of_runs
from mmdiffkd.analysis.report.run import labels_of, progress, read_run


def test_a_whole_run(tmp_path):
    config = distilled(tmp_path)
    run = read_run(write_run(tmp_path / 'run', config=config), 'run')
    assert run.missing == []
    assert [line['loss'] for line in run.train] == [2.0, 1.5, 1.25, 1.0]
    assert run.config.to_dict() == config.to_dict()
    # The folder was moved after the checkpoint was written.
    assert run.checkpoint == tmp_path / 'run/epoch_2.pth'
    assert run.environment.splitlines()[2] == '    PyTorch: 2.11.0'
    assert progress(run) == (2, 2, 'epoch')


def test_what_is_missing_is_said(tmp_path):
    folder = tmp_path / 'run'
    folder.mkdir()
    torch.save({}, folder / 'epoch_1.pth')
    assert read_run(folder, 'run').missing == [
        'There are no logged values: no */vis_data/scalars.json.',
        'There is no config.',
        'The log does not say on which machine it ran.',
    ]


def test_an_interrupted_run(tmp_path):
    folder = write_run(
        tmp_path / 'run',
        LINES[:4],
        distilled(tmp_path, train_cfg=dict(max_epochs=7)),
        checkpoint=None,
    )
    # A file that was being written when the run was killed.
    (folder / 'epoch_1.pth').write_bytes(b'PK')
    run = read_run(folder, 'run')
    assert run.checkpoint is None
    assert run.missing == [
        'There is no complete checkpoint.',
        'The run is not finished: epoch 1 of 7 is the last that left a trace.',
    ]


def test_an_epoch_that_began_is_not_reached(tmp_path):
    lines = [{**LINES[0], 'epoch': 2, 'step': 1, 'iter': 1}]
    config = distilled(tmp_path, train_cfg=dict(max_epochs=2))
    folder = write_run(tmp_path / 'run', lines, config, checkpoint=None)
    run = read_run(folder, 'run')
    assert progress(run) == (1, 2, 'epoch')
    assert 'The run is not finished: epoch 1 of 2' in run.missing[-1]


def test_an_evaluation_afterwards_changes_nothing(tmp_path):
    folder = write_run(tmp_path / 'run', config=distilled(tmp_path))
    before = read_run(folder, 'run')
    test = folder / '20260102_000000'
    (test / 'vis_data').mkdir(parents=True)
    (test / 'vis_data/config.py').write_text('model = dict(type="Other")\n')
    log = folder / '20260101_000000/20260101_000000.log'
    (test / 'test.log').write_text(log.read_text().replace('2.11.0', 'other'))
    after = read_run(folder, 'run')
    assert after.config_text == before.config_text
    assert after.environment == before.environment
    assert 'other' not in after.environment


@pytest.mark.parametrize(
    'changes, message',
    [
        ({'model': 3}, '`model` is 3 and no dict'),
        ({'train_cfg': [1]}, r'`train_cfg` is \[1\] and no dict'),
        (
            {'train_cfg': {'max_epochs': 'a'}},
            "`train_cfg.max_epochs` is 'a' and no number",
        ),
    ],
)
def test_a_config_of_no_use(tmp_path, changes, message):
    folder = write_run(tmp_path / 'run')
    text = '\n'.join(f'{key} = {value!r}' for key, value in changes.items())
    start = folder / '20260101_000000'
    (start / 'vis_data/config.py').write_text(text)
    run = read_run(folder, 'run')
    assert run.config is None
    assert any(re.search(message, sentence) for sentence in run.missing)


def test_a_run_counted_in_iterations(tmp_path):
    loop = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=8)
    config = distilled(tmp_path, train_cfg=loop)
    folder = write_run(tmp_path / 'run', config=config, checkpoint=None)
    assert progress(read_run(folder, 'run')) == (8, 8, 'iteration')


def test_a_config_that_is_code_is_not_run(tmp_path):
    folder = write_run(tmp_path / 'run')
    config = folder / '20260101_000000/vis_data/config.py'
    config.write_text(f'open({str(tmp_path / "ran")!r}, "w")\n')
    run = read_run(folder, 'run')
    assert run.config is None
    assert run.missing[0].startswith('The config cannot be read: ')
    assert not (tmp_path / 'ran').exists()


def test_modules_that_the_config_names_are_imported(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / 'my_networks.py').write_text(
        'from mmpretrain.models import ResNet_CIFAR\n'
        'from mmpretrain.registry import MODELS\n\n\n'
        '@MODELS.register_module()\n'
        'class MyNetwork(ResNet_CIFAR):\n'
        '    pass\n'
    )
    config = distilled(tmp_path, custom_imports=dict(imports=['my_networks']))
    config.model.student.backbone.type = 'MyNetwork'
    run = read_run(write_run(tmp_path / 'run', config=config), 'run')
    assert run.missing == []
    (costs,) = costs_of_runs([run])
    assert costs['reason'] == ''
    assert costs['rows'][0]['part'] == 'deployed'


def test_modules_that_are_not_there(tmp_path):
    config = distilled(tmp_path, custom_imports=dict(imports=['no_such']))
    run = read_run(write_run(tmp_path / 'run', config=config), 'run')
    (sentence,) = run.missing
    assert sentence.startswith('`custom_imports` of the config cannot be')
    assert 'no_such' in sentence and 'PYTHONPATH' in sentence


def test_the_config_beside_the_logs_is_not_the_plain_recipe(tmp_path):
    folder = write_run(tmp_path / 'run')
    (folder / 'student.py').write_text('a = 1\n')
    (folder / 'zebra.py').write_text('a = 2\n')
    assert read_run(folder, 'run').config.a == 2


@pytest.mark.parametrize('name', ['', 'nowhere'])
def test_no_run(tmp_path, name):
    with pytest.raises(FileNotFoundError, match='work directory of a run'):
        read_run(tmp_path / name, 'run')


@pytest.mark.parametrize(
    'folders, labels',
    [
        (['a/b/run'], ['run']),
        (['a/x/seed_0', 'a/y/seed_0'], ['x', 'y']),
        (['a/x', 'a/x/seed_0'], ['x', 'x/seed_0']),
        (['a/x/1', 'a/x/2', 'a/y/1'], ['x/1', 'x/2', 'y/1']),
    ],
)
def test_labels(folders, labels):
    assert labels_of(list(map(Path, folders))) == labels
