"""Other packages' own entrances, on what a run leaves behind."""

import copy
import warnings
from pathlib import Path

import numpy as np
import pytest
import tiny_detectors
import tiny_recipes
import tiny_segmenters
import torch
from mmdet.apis import DetInferencer, inference_detector, init_detector
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmpretrain import get_model
from mmpretrain.apis import ImageClassificationInferencer
from mmseg.apis import MMSegInferencer, init_model
from mmseg.apis import inference_model as inference_segmentor
from recipe_files import run_tool, write_lazy_recipe

IMAGE = np.zeros((64, 64, 3), np.uint8)


def entry(at: str) -> dict:
    neck, loss = dict(type='ProjectionNeck'), dict(type='MSELoss')
    return dict(f=dict(at=at, neck=neck, loss=loss))


RECIPES = {
    'classifier': (tiny_recipes.recipe, tiny_recipes.distiller()),
    'detector': (
        tiny_detectors.recipe,
        tiny_detectors.distiller('retinanet', entry('neck[:]')),
    ),
    'segmentor': (
        tiny_segmenters.recipe,
        tiny_segmenters.distiller('fcn', entry('backbone[-1]')),
    ),
}


def train(kind, folder, lines=True, **changes):
    """Train for an epoch; gives the work directory."""
    recipe, model = RECIPES[kind]
    config = recipe(folder, copy.deepcopy(model), epochs=1)
    config.update(
        test_dataloader=copy.deepcopy(config.val_dataloader),
        test_evaluator=copy.deepcopy(config.val_evaluator),
        test_cfg=dict(),
        test_pipeline=config.val_dataloader.dataset.pipeline,
        **changes,
    )
    config.model.student.backbone.pop('init_cfg', None)
    if lines:
        tiny_recipes.with_distill_lines(config)
    else:
        hook = dict(distill=dict(type='mmdiffkd.DistillHook'))
        config.merge_from_dict(dict(default_hooks=hook))
    tiny_recipes.train(config)
    # The entrances set a scope of their own.
    DefaultScope._instance_dict.clear()
    return folder / 'work'


def opened(kind, work):
    """The model that the package's entrance makes, having predicted once."""
    files = str(work / 'student.py'), str(work / 'epoch_1.pth')
    if kind == 'detector':
        model = init_detector(*files, device='cpu')
        assert inference_detector(model, IMAGE).pred_instances is not None
    elif kind == 'segmentor':
        model = init_model(*files, device='cpu')
        result = inference_segmentor(model, IMAGE)
        assert result.pred_sem_seg.shape == (64, 64)
    else:
        model = get_model(files[0], pretrained=files[1])
        (found,) = ImageClassificationInferencer(model)(IMAGE)
        assert found['pred_label'] in (0, 1)
    return model


@pytest.mark.parametrize('kind', RECIPES)
@pytest.mark.parametrize('averaged', [False, True])
def test_entrances_take_the_checkpoints_of_a_run(kind, averaged, tmp_path):
    hooks = [dict(type='EMAHook', momentum=0.5)] if averaged else []
    work = train(kind, tmp_path, custom_hooks=hooks)
    saved = torch.load(work / 'epoch_1.pth', weights_only=False)
    with warnings.catch_warnings():
        warnings.filterwarnings('error', message='.*not match exactly')
        model = opened(kind, work)
    assert ('ema_state_dict' in saved) == averaged
    found = model.state_dict()
    assert found.keys() == saved['state_dict'].keys()
    for name, tensor in saved['state_dict'].items():
        assert torch.equal(found[name], tensor), name
    student = RECIPES[kind][1]['student']
    mean = torch.tensor(student['data_preprocessor']['mean'])
    assert torch.equal(model.data_preprocessor.mean.flatten(), mean)


@pytest.mark.parametrize('kind', RECIPES)
def test_without_the_hook_of_checkpoints(kind, tmp_path):
    """Then files have what distillation trains beside the student."""
    work = train(kind, tmp_path, lines=False)
    saved = torch.load(work / 'epoch_1.pth', weights_only=False)['state_dict']
    found = opened(kind, work).state_dict()
    assert found.keys() < saved.keys()
    assert all(torch.equal(saved[name], found[name]) for name in found)


@pytest.mark.parametrize('kind', RECIPES)
def test_inferencers(kind, tmp_path):
    work = train(kind, tmp_path)
    files = str(work / 'student.py'), str(work / 'epoch_1.pth')
    if kind == 'detector':
        infer = DetInferencer(*files, device='cpu')
        found = infer(IMAGE, no_save_vis=True)['predictions']
        assert len(found) == 1
    elif kind == 'segmentor':
        infer = MMSegInferencer(*files, device='cpu')
        assert infer(IMAGE)['predictions'].shape == (64, 64)
    else:
        infer = ImageClassificationInferencer(*files, device='cpu')
        assert infer(IMAGE)[0]['pred_label'] in (0, 1)


def test_it_is_the_plain_recipe(monkeypatch, tmp_path):
    work = train('classifier', tmp_path)
    plain = Config.fromfile(work / 'student.py')
    assert plain.model == tiny_recipes.classifier()
    assert 'mmdiffkd' not in plain.pretty_text
    run_tool(
        monkeypatch,
        'train.py',
        work / 'student.py',
        f'--work-dir={tmp_path / "plain"}',
    )
    saved = torch.load(tmp_path / 'plain/epoch_1.pth', weights_only=False)
    assert not any(key.startswith('distill') for key in saved['state_dict'])


def test_of_a_config_with_classes_for_types(monkeypatch, tmp_path):
    write_lazy_recipe(tmp_path)
    run_tool(
        monkeypatch,
        'train.py',
        tmp_path / 'lazy_distiller.py',
        f'--work-dir={tmp_path / "run"}',
    )
    DefaultScope._instance_dict.clear()
    files = [str(tmp_path / 'run' / n) for n in ('student.py', 'epoch_1.pth')]
    model = get_model(files[0], pretrained=files[1])
    assert model(torch.zeros(1, 3, 16, 16)).shape == (1, 2)
    # How the processes of that run were started.
    assert 'launcher' not in Config.fromfile(files[0])
    run_tool(
        monkeypatch,
        'train.py',
        tmp_path / 'run/student.py',
        f'--work-dir={tmp_path / "plain"}',
    )
    assert (tmp_path / 'plain/epoch_1.pth').is_file()


@pytest.mark.parametrize('inside', [True, False])
def test_a_config_of_that_name_is_left_alone(tmp_path, inside):
    recipe = tiny_recipes.distill_recipe(tmp_path, epochs=1)
    if inside:
        recipe.work_dir = str(tmp_path)
    recipe.dump(tmp_path / 'student.py')
    before = (tmp_path / 'student.py').read_text()
    config = Config.fromfile(tmp_path / 'student.py')
    for _ in range(2):
        tiny_recipes.train(config)
        work = Path(config.work_dir)
        assert 'Distiller' in (work / 'student.py').read_text()
        plain = Config.fromfile(work / 'plain_student.py')
        assert plain.model.type == 'ImageClassifier'
    if not inside:
        assert (tmp_path / 'student.py').read_text() == before


def test_a_second_run_writes_it_again(tmp_path):
    config = tiny_recipes.distill_recipe(tmp_path, epochs=1)
    tiny_recipes.train(copy.deepcopy(config))
    config.optim_wrapper.optimizer.lr = 0.123
    tiny_recipes.train(config)
    file = tmp_path / 'work' / 'student.py'
    assert Config.fromfile(file).optim_wrapper.optimizer.lr == 0.123
    assert not file.with_name('plain_student.py').exists()


def test_a_student_that_no_config_holds_is_left_out(build, tmp_path):
    config = tiny_recipes.distill_recipe(tmp_path, epochs=1)
    runner = tiny_recipes.make_runner(config)
    runner.cfg.model.student = build(tiny_recipes.classifier())
    runner.train()
    assert (tmp_path / 'work/epoch_1.pth').is_file()
    assert not (tmp_path / 'work/student.py').exists()
