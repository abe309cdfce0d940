import pickle
import sys

import pytest
import torch
from mmdet.engine import DetVisualizationHook
from mmengine.config import ConfigDict
from mmengine.fileio import load
from mmpretrain.engine import VisualizationHook
from recipe_files import (
    load_tool,
    run_tool,
    write_lazy_recipe,
    write_recipe,
)


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """A finished run, whose teacher's checkpoint is gone."""
    folder = write_recipe(tmp_path_factory.mktemp('run'))
    with pytest.MonkeyPatch.context() as monkeypatch:
        run_tool(
            monkeypatch,
            'train.py',
            folder / 'distiller.py',
            f'--work-dir={folder}',
            '--no-validate',
        )
    config = folder / 'distiller.py'
    text = config.read_text()
    assert 'checkpoint=None' in text
    config.write_text(text.replace('checkpoint=None', "checkpoint='gone.pth'"))
    checkpoint = torch.load(folder / 'epoch_1.pth', weights_only=False)
    torch.save(checkpoint['state_dict'], folder / 'bare.pth')
    return folder


def evaluate(run, monkeypatch, config, checkpoint, out, *arguments):
    run_tool(
        monkeypatch,
        'test.py',
        run / config,
        run / checkpoint,
        f'--work-dir={out.parent}',
        f'--out={out}',
        *arguments,
    )


def test_either_config_takes_either_checkpoint(run, monkeypatch, tmp_path):
    scores = []
    for config in ('plain.py', 'distiller.py'):
        for checkpoint in ('epoch_1.pth', 'bare.pth'):
            out = tmp_path / f'{config}-{checkpoint}.pkl'
            evaluate(run, monkeypatch, config, checkpoint, out)
            with out.open('rb') as file:
                predictions = pickle.load(file)
            scores.append(torch.stack([p['pred_score'] for p in predictions]))
    assert len(scores[0]) == 4
    for other in scores[1:]:
        assert torch.equal(scores[0], other)


def test_metrics_are_written(run, monkeypatch, tmp_path):
    out = tmp_path / 'metrics.json'
    evaluate(
        run, monkeypatch, 'plain.py', 'bare.pth', out, '--out-item=metrics'
    )
    assert 0 <= load(out)['accuracy/top1'] <= 100


def test_test_time_augmentation(run, monkeypatch, tmp_path):
    out = tmp_path / 'tta.pkl'
    evaluate(run, monkeypatch, 'distiller.py', 'bare.pth', out, '--tta')
    evaluate(run, monkeypatch, 'plain.py', 'bare.pth', tmp_path / 'one.pkl')
    averaged, single = (
        torch.stack([p['pred_score'] for p in load(tmp_path / name)])
        for name in ('tta.pkl', 'one.pkl')
    )
    assert averaged.shape == single.shape
    assert not torch.equal(averaged, single)


def test_predictions_are_painted(run, monkeypatch, tmp_path):
    run_tool(
        monkeypatch,
        'test.py',
        run / 'plain.py',
        run / 'bare.pth',
        f'--work-dir={tmp_path}',
        f'--show-dir={tmp_path / "painted"}',
    )
    # The two classes have files of the same names.
    painted = {path.name for path in (tmp_path / 'painted').iterdir()}
    assert painted == {'0.png_0.png', '1.png_0.png'}


@pytest.mark.parametrize('config', ['lazy_plain.py', 'lazy_distiller.py'])
def test_types_that_are_classes(run, monkeypatch, tmp_path, config):
    write_lazy_recipe(tmp_path)
    scores = {}
    for name, arguments in (
        ('painted', [f'--show-dir={tmp_path / "painted"}']),
        ('averaged', ['--tta']),
    ):
        out = tmp_path / name / 'out.pkl'
        evaluate(
            tmp_path, monkeypatch, config, run / 'bare.pth', out, *arguments
        )
        scores[name] = torch.stack([p['pred_score'] for p in load(out)])
    assert len(list((tmp_path / 'painted').glob('*.png'))) == 2
    assert not torch.equal(scores['painted'], scores['averaged'])
    out = tmp_path / 'metrics.json'
    evaluate(
        tmp_path,
        monkeypatch,
        config,
        run / 'bare.pth',
        out,
        '--out-item=metrics',
    )
    assert 'accuracy/top1' in load(out)


def test_checkpoint_of_another_model_is_refused(run, monkeypatch, tmp_path):
    weights = torch.load(run / 'bare.pth', weights_only=True)
    del weights['head.fc.weight']
    torch.save(weights, tmp_path / 'few.pth')
    with pytest.raises(ValueError, match='does not fit.*head.fc.weight'):
        evaluate(
            run,
            monkeypatch,
            'plain.py',
            tmp_path / 'few.pth',
            tmp_path / 'out.pkl',
        )
    weights['head.fc.weight'] = torch.zeros(3, 64)
    torch.save(weights, tmp_path / 'other.pth')
    with pytest.raises(ValueError, match=r'(?s)does not fit.*head.fc.weight'):
        evaluate(
            run,
            monkeypatch,
            'distiller.py',
            tmp_path / 'other.pth',
            tmp_path / 'out.pkl',
        )


@pytest.mark.parametrize(
    ('hook', 'on', 'folder'),
    [
        ('VisualizationHook', 'enable', 'out_dir'),
        ('mmpretrain.VisualizationHook', 'enable', 'out_dir'),
        ('DetVisualizationHook', 'draw', 'test_out_dir'),
        ('SegVisualizationHook', 'draw', None),
        (VisualizationHook, 'enable', 'out_dir'),
        (DetVisualizationHook, 'draw', 'test_out_dir'),
    ],
)
def test_each_package_is_told_to_paint_in_its_words(hook, on, folder):
    tool = load_tool('test.py')
    cfg = ConfigDict(
        default_hooks=dict(visualization=dict(type=hook)), visualizer={}
    )
    args = ConfigDict(show=True, wait_time=1, show_dir='there', interval=3)
    tool['paint_predictions'](cfg, args)
    told = cfg.default_hooks.visualization
    assert told[on] and told.show and told.wait_time == 1
    assert told.interval == 3
    where = told[folder] if folder else cfg.visualizer.save_dir
    assert where == 'there'


def test_painting_without_a_hook_is_an_error():
    tool = load_tool('test.py')
    args = ConfigDict(show=True, config='mine.py')
    with pytest.raises(KeyError, match='default_hooks.visualization'):
        tool['paint_predictions'](ConfigDict(), args)


def test_predictions_need_a_pickle(monkeypatch, capsys):
    monkeypatch.setattr(
        sys, 'argv', ['test.py', 'a.py', 'a.pth', '--out=a.json']
    )
    with pytest.raises(SystemExit):
        load_tool('test.py')['parse_args']()
    assert '--out-item metrics' in capsys.readouterr().err
