import json
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_detectors
import tiny_recipes
import tiny_segmenters
import torch
from mmdet.apis import DetInferencer, inference_detector, init_detector
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from mmengine.registry import MODELS, DefaultScope
from mmpretrain import ImageClassificationInferencer
from mmpretrain.apis import get_model
from mmseg.apis import MMSegInferencer, inference_model, init_model
from PIL import Image
from recipe_files import load_tool, run_tool, write_recipe
from safetensors.torch import load_file

from mmdiffkd.utils import class_names, load_config, read_checkpoint
from mmdiffkd.utils.safe_loader import guard_checkpoints

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
    text = exported['meta'].pop('cfg')
    assert exported['meta'] == dict(dataset_meta=dict(classes=('a', 'b')))
    same_weights(exported['state_dict'], run)
    recipe = Config.fromstring(text, '.py')
    inside = recipe.model.pop('data_preprocessor', recipe.data_preprocessor)
    assert inside == recipe.data_preprocessor
    assert recipe.to_dict() == load_config(run / 'plain.py').to_dict()


def test_safetensors(run, monkeypatch, capsys):
    out = run / 'student.safetensors'
    run_tool(monkeypatch, TOOL, run / 'run.pth', out)
    same_weights(load_file(out), run)
    # The checkpoint of these tests has no text of a config.
    assert 'goes without a recipe: the check' in capsys.readouterr().out
    assert read_checkpoint(out)['meta'] == dict(
        dataset_meta=dict(classes=['a', 'b'])
    )


@pytest.mark.parametrize(
    'text, reason',
    [
        ('model = open("victim", "w")', 'more than names and values'),
        ('import os', 'more than names and values'),
        ('x = 1', 'no `model`'),
        ('model = 1', 'no `model`'),
    ],
)
def test_no_config_of_a_checkpoint_is_run(
    run, monkeypatch, capsys, text, reason
):
    monkeypatch.chdir(run)
    checkpoint = torch.load('run.pth', weights_only=False)
    checkpoint['meta']['cfg'] = text
    torch.save(checkpoint, 'run.pth')
    run_tool(monkeypatch, TOOL, 'run.pth', 'student.pth')
    assert reason in capsys.readouterr().out
    assert not (run / 'victim').exists()
    same_weights(read_checkpoint('student.pth')['state_dict'], run)


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


# What the inferencers of the packages make of an export


IMAGE = np.random.default_rng(0).integers(0, 256, (48, 40, 3), 'uint8')


def classification(root):
    return tiny_recipes.recipe(root, tiny_recipes.distiller(), epochs=1)


def detection(root):
    entry = dict(at='neck[:]', neck=None, loss=dict(type='MSELoss'))
    # A new network is sure of nothing.
    student = tiny_detectors.detector('retinanet', test_cfg=dict(score_thr=0))
    model = tiny_detectors.distiller(
        'retinanet', dict(feature=entry), student=student
    )
    return tiny_detectors.recipe(root, model, epochs=1)


def segmentation(root):
    folder = root / 'seg'
    folder.mkdir()
    for i in range(2):
        Image.fromarray(IMAGE).resize((64, 64)).save(folder / f'{i}.jpg')
        labels = Image.fromarray(IMAGE[..., 0] % tiny_segmenters.CLASSES)
        labels.resize((64, 64), Image.Resampling.NEAREST).save(
            folder / f'{i}.png'
        )
    entry = dict(at='decode_head.conv_seg', neck=None)
    entry['loss'] = dict(type='KLDivergence')
    dataset = dict(
        type='BaseSegDataset',
        data_root=str(folder),
        metainfo=dict(
            classes=tuple('abcde'),
            palette=[[20 * i, i, i] for i in range(5)],
        ),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations'),
            dict(type='PackSegInputs'),
        ],
    )
    return tiny_recipes.assemble(
        root,
        tiny_segmenters.distiller('fcn', dict(logits=entry)),
        scope='mmseg',
        datasets=(dataset, dataset),
        loader=dict(batch_size=2, num_workers=0),
        val_evaluator=dict(type='IoUMetric'),
        train_cfg=dict(by_epoch=True, max_epochs=1, val_interval=2),
        optimizer=dict(type='SGD', lr=0.01),
        interval=1,
        visualizer='SegLocalVisualizer',
    )


@pytest.fixture
def exported(tmp_path, monkeypatch):
    """Train a recipe and export its student; gives the student, too."""

    def function(recipe, suffix):
        config = recipe(tmp_path)
        config.test_dataloader = config.val_dataloader
        config.test_evaluator = config.val_evaluator
        config.test_cfg = dict()
        config.test_pipeline = config.val_dataloader.dataset.pipeline
        config.default_hooks.checkpoint.exact_resume = True
        tiny_recipes.with_distill_lines(config)
        config.default_hooks.distill.evaluate_teacher = False
        runner = tiny_recipes.train(config)
        out = tmp_path / f'student{suffix}'
        run_tool(monkeypatch, TOOL, tmp_path / 'work/epoch_1.pth', out)
        # Others' loaders read no safetensors.
        guard_checkpoints()
        monkeypatch.chdir(tmp_path)
        return str(out), runner.model.student.eval()

    return function


def recipe_of(out):
    text = read_checkpoint(out)['meta']['cfg']
    assert 'mmdiffkd' not in text
    return Config.fromstring(text, '.py')


def same_model(found, student):
    expected = student.state_dict()
    assert found.state_dict().keys() == expected.keys()
    for name, tensor in found.state_dict().items():
        assert torch.equal(tensor, expected[name])


formats = pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])


@formats
def test_inference_of_classifiers(exported, suffix):
    out, student = exported(classification, suffix)
    infer = ImageClassificationInferencer(recipe_of(out), out, device='cpu')
    (result,) = infer(IMAGE)
    assert result['pred_class'] in ('first', 'second')
    same_model(infer.model, student)
    model = get_model(recipe_of(out), out, device='cpu')
    same_model(model, student)
    (again,) = ImageClassificationInferencer(model)(IMAGE)
    assert again['pred_score'] == result['pred_score']


@formats
def test_an_export_is_tested_and_exported_again(exported, monkeypatch, suffix):
    out, _ = exported(classification, suffix)
    recipe_of(out).dump('student.py')
    scores = []
    for checkpoint in (out, 'work/epoch_1.pth'):
        arguments = ('student.py', checkpoint, '--work-dir=tested')
        outs = ('--out=scores.json', '--out-item=metrics')
        run_tool(monkeypatch, 'test.py', *arguments, *outs)
        scores.append(json.loads(Path('scores.json').read_text()))
    assert scores[0] == scores[1]
    assert 'accuracy/top1' in scores[0]
    for again in ('again.pth', 'again.safetensors'):
        run_tool(monkeypatch, TOOL, out, again, '--config=student.py')
        assert recipe_of(again).to_dict() == recipe_of(out).to_dict()
        meta = read_checkpoint(again)['meta']
        assert class_names(meta) == ['first', 'second']


@formats
def test_inference_of_detectors(exported, suffix):
    out, student = exported(detection, suffix)
    infer = DetInferencer(weights=out, device='cpu')
    result = infer(IMAGE, return_vis=True)
    (found,) = result['predictions']
    assert found['scores'] and set(found['labels']) <= {0, 1, 2}
    assert result['visualization'][0].shape == IMAGE.shape
    same_model(infer.model, student)
    model = init_detector(recipe_of(out), out, device='cpu')
    assert list(model.dataset_meta['classes']) == list(tiny_detectors.NAMES)
    instances = inference_detector(model, IMAGE).pred_instances
    assert instances.scores.tolist() == pytest.approx(found['scores'])


@formats
def test_inference_of_segmentors(exported, suffix):
    out, student = exported(segmentation, suffix)
    infer = MMSegInferencer(None, out, device='cpu', show_progress=False)
    result = infer(IMAGE, return_vis=True)
    assert result['predictions'].shape == IMAGE.shape[:2]
    assert result['visualization'].shape == IMAGE.shape
    same_model(infer.model, student)
    model = init_model(recipe_of(out), out, device='cpu')
    assert list(model.dataset_meta['classes']) == list('abcde')
    labels = inference_model(model, IMAGE).pred_sem_seg.data[0]
    assert (labels.numpy() == result['predictions']).all()
