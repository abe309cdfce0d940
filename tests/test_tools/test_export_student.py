import sys

import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.registry import MODELS, DefaultScope
from recipe_files import load_tool, run_tool, write_recipe
from safetensors.torch import load_file

from mmdiffkd.utils import load_config

TOOL = 'model_converters/export_student.py'


@pytest.fixture
def run(tmp_path):
    """A checkpoint with all that MMEngine and a distiller put in."""
    folder = write_recipe(tmp_path)
    weights = student_weights(folder)
    history = HistoryBuffer()
    history.update(1.0)
    torch.save(
        dict(
            meta=dict(epoch=1, dataset_meta=dict(classes=('a', 'b'))),
            state_dict=weights,
            distill_state_dict={'feature.weight': torch.zeros(3)},
            ema_state_dict={f'module.{k}': v + 1 for k, v in weights.items()},
            message_hub=dict(log_scalars={'train/loss': history}),
            optimizer=dict(state={}, param_groups=[]),
        ),
        folder / 'run.pth',
    )
    return folder


def student_weights(folder):
    cfg = load_config(folder / 'plain.py')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return dict(MODELS.build(cfg.model).state_dict())


@pytest.mark.parametrize('config', ['plain.py', 'distiller.py'])
def test_plain_weights_and_nothing_else(run, monkeypatch, config):
    out = run / 'exported/student.pth'
    run_tool(monkeypatch, TOOL, run / 'run.pth', out, '--config', run / config)
    exported = torch.load(out, weights_only=True)
    assert set(exported) == {'meta', 'state_dict'}
    assert exported['meta'] == dict(dataset_meta=dict(classes=('a', 'b')))
    same_weights(exported['state_dict'], run)


def test_safetensors(run, monkeypatch):
    out = run / 'student.safetensors'
    run_tool(monkeypatch, TOOL, run / 'run.pth', out)
    same_weights(load_file(out), run)


def same_weights(exported, run):
    expected = torch.load(run / 'run.pth', weights_only=False)['state_dict']
    assert exported.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(exported[name], tensor)


def test_weights_that_do_not_fit_are_not_written(run, monkeypatch):
    checkpoint = torch.load(run / 'run.pth', weights_only=False)
    del checkpoint['state_dict']['head.fc.bias']
    torch.save(checkpoint, run / 'run.pth')
    out = run / 'student.pth'
    with pytest.raises(ValueError, match=r'head\.fc\.bias'):
        run_tool(
            monkeypatch,
            *(TOOL, run / 'run.pth', out),
            *('--config', run / 'plain.py'),
        )
    assert not out.exists()


def test_other_formats_are_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['export', 'a.pth', 'a.onnx'])
    with pytest.raises(SystemExit):
        load_tool(TOOL)['parse_args']()
    assert '.pth or .safetensors' in capsys.readouterr().err
