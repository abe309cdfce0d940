import subprocess
import sys
from pathlib import Path

import pytest
import tiny_detectors
import tiny_recipes
import tiny_segmenters
import torch
from recipe_files import ROOT, run_tool, write_lazy_recipe

from mmdiffkd.models.distillers.teacher import build_from_config
from mmdiffkd.utils import load_config

TOOL = 'distill.py'
RECIPES = {
    'mmpretrain': lambda root, base: tiny_recipes.recipe(
        root, tiny_recipes.classifier(base), epochs=1
    ),
    'mmdet': lambda root, base: tiny_detectors.recipe(
        root, tiny_detectors.detector('retinanet', base), epochs=1
    ),
    'mmseg': lambda root, base: tiny_segmenters.recipe(
        root, tiny_segmenters.segmenter('pspnet', base), epochs=1
    ),
}
ENTRIES = {
    'mmpretrain': ['feature', 'logits'],
    'mmdet': ['fpn', 'reg'],
    'mmseg': ['logits', 'aux'],
}


def write(root, package='mmpretrain'):
    """A student's recipe, and a wider teacher's with its weights."""
    for name, base in (('student', 4), ('teacher', 6)):
        recipe = RECIPES[package](root, base)
        (root / f'{name}.py').write_text(recipe.pretty_text)
    weights = build_from_config(recipe).state_dict()
    torch.save(weights, root / 'teacher.pth')


def distill(monkeypatch, *arguments, teacher='teacher.py', **flags):
    flags = {'checkpoint': 'teacher.pth', **flags}
    given = [f'--{name}={value}' for name, value in flags.items()]
    run_tool(
        monkeypatch,
        TOOL,
        'student.py',
        f'--teacher={teacher}',
        *given,
        *arguments,
    )


@pytest.fixture
def folder(tmp_path, monkeypatch):
    write(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize('package', RECIPES)
def test_a_recipe(package, tmp_path, monkeypatch, capsys):
    write(tmp_path, package)
    monkeypatch.chdir(tmp_path)
    distill(monkeypatch)
    printed = capsys.readouterr().out
    assert 'deployed ' in printed and 'teacher, forward' in printed
    assert "3 steps on the recipe's own data, the last batch (" in printed
    assert ' s a step after the first, ' in printed
    assert 'Written: diffkd_student.py' in printed
    config = load_config('diffkd_student.py')
    assert list(config.model.distill) == ENTRIES[package]
    assert config.model.teacher == dict(
        config='teacher.py', checkpoint='teacher.pth'
    )
    assert (
        config.model.get('input_size')
        == {
            'mmpretrain': tiny_recipes.SIZE,
            'mmdet': None,
            'mmseg': tiny_segmenters.SIZE,
        }[package]
    )
    run_tool(monkeypatch, 'misc/print_config.py', 'diffkd_student.py')
    assert 'mmdiffkd.Distiller' in capsys.readouterr().out
    runner = tiny_recipes.train(config)
    assert runner.iter == 2
    logged = runner.message_hub.log_scalars
    for name in ENTRIES[package]:
        loss = logged[f'train/distill.{name}.loss_kd'].current()
        assert 0 < loss < float('inf')


def test_from_another_folder(folder, monkeypatch):
    (folder / 'elsewhere').mkdir()
    changes = '--distill', 'weight=2', 'logits=None'
    distill(monkeypatch, *changes, out='elsewhere/new/mine.py')
    text = Path('elsewhere/new/mine.py').read_text()
    assert "\n_base_ = '../../student.py'\n" in text
    assert '# The map of the image with the coarsest stride.' in text
    monkeypatch.chdir('elsewhere')
    config = load_config('new/mine.py')
    assert config.model.distill.feature.weight == 2
    assert list(config.model.distill) == ['feature']
    assert Path(config.model.teacher.checkpoint).samefile(
        folder / 'teacher.pth'
    )


def test_without_data(folder, monkeypatch, capsys):
    (folder / 'data').rename(folder / 'gone')
    # The images have the size of ImageNet's, on which a denoiser takes long.
    distill(monkeypatch, method='kd')
    printed = capsys.readouterr()
    assert '3 steps on random images, the last batch (4, 3' in printed.out
    assert 'input_size' not in Path('kd_student.py').read_text()


def test_constructor_of_the_recipe(folder, monkeypatch):
    recipe = Path('student.py')
    recipe.write_text(
        recipe.read_text() + "\noptim_wrapper['constructor'] = "
        "'mmpretrain.LearningRateDecayOptimWrapperConstructor'\n"
    )
    distill(monkeypatch, '--no-trial')
    optim = load_config('diffkd_student.py').optim_wrapper
    assert optim.constructor == 'mmdiffkd.OptimWrapperConstructor'
    assert optim.paramwise_cfg.student_constructor.startswith('mmpretrain.')


def test_trial_that_fails_is_said(folder, monkeypatch, capsys):
    recipe = Path('student.py')
    recipe.write_text(
        recipe.read_text() + "\noptim_wrapper['type'] = 'NoSuchWrapper'\n"
    )
    distill(monkeypatch)
    printed = capsys.readouterr().out
    assert "The trial steps on the recipe's own data failed: " in printed
    assert 'NoSuchWrapper' in printed
    assert Path('diffkd_student.py').is_file()


def nothing_is_written(folder, message, error, monkeypatch, *args, **flags):
    before = sorted(folder.rglob('*.py'))
    with pytest.raises(error, match=message):
        distill(monkeypatch, *args, **flags)
    assert sorted(folder.rglob('*.py')) == before


@pytest.mark.parametrize(
    'message, error, flags',
    [
        (
            "'student.py' already.*another name by",
            OSError,
            {'out': 'student.py'},
        ),
        ("--out is 'a.txt'.*ends in .py", ValueError, {'out': 'a.txt'}),
        ("is 'fgd', which has no preset", ValueError, {'method': 'fgd'}),
        (
            'teacher.checkpoint` is .none.pth',
            OSError,
            {'checkpoint': 'none.pth'},
        ),
        ('teacher.config` is .none.py', OSError, {'teacher': 'none.py'}),
    ],
)
def test_errors(folder, monkeypatch, message, error, flags):
    nothing_is_written(folder, message, error, monkeypatch, **flags)


def test_checkpoint_of_another_network(folder, monkeypatch):
    other = tiny_recipes.recipe(folder, tiny_recipes.classifier(8))
    torch.save(build_from_config(other).state_dict(), 'other.pth')
    nothing_is_written(
        folder,
        'checkpoint .*other.pth.* does not fit',
        ValueError,
        monkeypatch,
        checkpoint='other.pth',
    )


def test_two_tasks(folder, monkeypatch):
    segmentor = tiny_segmenters.recipe(
        folder, tiny_segmenters.segmenter('pspnet')
    )
    Path('other.py').write_text(segmentor.pretty_text)
    nothing_is_written(
        folder,
        'for classification, and the teacher .* one for segmentation',
        ValueError,
        monkeypatch,
        teacher='other.py',
    )


HEAD = """
from mmpretrain.models import LinearClsHead
from mmpretrain.registry import MODELS


@MODELS.register_module(force=True)
class OwnHead(LinearClsHead):
    def forward(self, feats):
        return self.fc(self.pre_logits(feats))
"""


def test_a_head_that_is_not_known(folder, monkeypatch):
    (folder / 'own_head.py').write_text(HEAD)
    monkeypatch.syspath_prepend(str(folder))
    recipe = Path('student.py')
    recipe.write_text(
        recipe.read_text()
        + "\ncustom_imports = dict(imports=['own_head'])\n"
        + "model['head']['type'] = 'OwnHead'\n"
    )
    nothing_is_written(
        folder,
        r'(?s)where the student has .logits.*head.fc: \(2, 2\)',
        ValueError,
        monkeypatch,
    )
    distill(
        monkeypatch, '--no-trial', '--distill', 'logits.student_at=head.fc'
    )
    config = load_config('diffkd_student.py')
    assert config.model.distill.logits.at == 'head.fc'


def test_recipes_that_lines_do_not_fit(folder, monkeypatch):
    distill(monkeypatch, '--no-trial')
    Path('student.py').rename('plain.py')
    Path('diffkd_student.py').rename('student.py')
    text = Path('student.py').read_text()
    Path('student.py').write_text(text.replace("'student.py'", "'plain.py'"))
    nothing_is_written(folder, 'that of a distiller', ValueError, monkeypatch)
    Path('student.py').write_text(
        "_base_ = 'plain.py'\nmodel = dict(teachers=dict(a=dict()))"
    )
    nothing_is_written(folder, 'that of a distiller', ValueError, monkeypatch)
    write_lazy_recipe(folder / 'lazy')
    (folder / 'lazy/lazy_plain.py').rename('student.py')
    nothing_is_written(folder, "MMEngine's new style", ValueError, monkeypatch)


@pytest.mark.slow
def test_training_starts(folder):
    subprocess.run(
        [
            sys.executable,
            ROOT / 'tools' / TOOL,
            *('student.py', '--teacher', 'teacher.py'),
            *('--checkpoint', 'teacher.pth', '--train', '--work-dir', 'run'),
        ],
        check=True,
    )
    assert (folder / 'run/epoch_1.pth').is_file()
    assert (folder / 'run/student.py').is_file()
