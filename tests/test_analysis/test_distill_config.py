import math
from itertools import islice
from pathlib import Path

import pytest
import tiny_recipes
import torch
from mmengine.config import Config
from recipe_files import ROOT, run_tool

from mmdiffkd.analysis.distill_config import (
    compose,
    lines,
    own_batches,
    set_input_size,
    target,
    text_of,
    write,
)
from mmdiffkd.analysis.stock_data import write_data
from mmdiffkd.analysis.stock_recipes import reduce
from mmdiffkd.models.distillers.expansion import expand
from mmdiffkd.models.distillers.teacher import build_from_config
from mmdiffkd.utils import load_config

#: Stock configs, with what lengths are divided by if it is not the usual.
STOCK = [
    line.split('@')
    for line in (ROOT / 'tests/data/distilled_stock.txt')
    .read_text()
    .splitlines()
    if not line.startswith('#')
]


def test_where_it_is_written(tmp_path, monkeypatch):
    recipe = tmp_path / 'recipe.py'
    recipe.write_text('')
    monkeypatch.chdir(tmp_path)
    assert target(str(recipe), 'kd') == tmp_path / 'kd_recipe.py'
    assert target('recipe.py', 'kd') == Path('kd_recipe.py')
    stock = 'mmpretrain::resnet/resnet18_8xb32_in1k.py'
    assert target(stock, 'kd') == Path('kd_resnet18_8xb32_in1k.py')
    assert target(stock, 'kd', 'a/b.py') == Path('a/b.py')


def test_lines_hold_what_they_are_given():
    recipe = Config(dict(optim_wrapper=dict(constructor='Theirs')))
    text = lines('b.py', recipe, dict(config='t'), '    distill=3', size=4)
    values = {'_base_': None}
    text = text.replace("_base_ = 'b.py'\n", '')
    text = text.replace('_base_.model', "'student'")
    exec(text, values)
    assert values['model'] == dict(
        _delete_=True,
        type='mmdiffkd.Distiller',
        student='student',
        teacher=dict(config='t'),
        distill=3,
        size=4,
    )
    assert values['optim_wrapper'] == dict(
        constructor='mmdiffkd.OptimWrapperConstructor',
        paramwise_cfg=dict(student_constructor='Theirs'),
    )
    assert values['default_hooks']['distill']['type'].endswith('DistillHook')


@pytest.mark.parametrize(
    'text, missing',
    [
        ("optimizer = 'SGD'", 'model'),
        ("model = dict(type='Network')", 'train_dataloader'),
    ],
)
def test_a_config_that_trains_nothing(tmp_path, text, missing):
    recipe = tmp_path / 'recipe.py'
    recipe.write_text(f'{text}\n')
    with pytest.raises(ValueError, match=f'without {missing}. Give the plain'):
        compose(str(recipe), str(recipe), None, 'diffkd')


def test_the_documented_config_is_what_is_written():
    student = 'mmpretrain::resnet/resnet18_8xb32_in1k.py'
    teacher = 'mmpretrain::resnet/resnet34_8xb32_in1k.py'
    networks = [build_from_config(load_config(n)) for n in (student, teacher)]
    expansion = expand('diffkd', *networks, [(3, 224, 224)])
    config = compose(student, teacher, None, 'diffkd')
    config.model.teacher.checkpoint = 'resnet34.pth'
    out = target(student, 'diffkd')
    text = text_of(config, expansion, student, out)
    assert text in (ROOT / 'docs/distill_command.md').read_text()


@pytest.mark.parametrize(
    'package, shapes, size',
    [
        ('mmpretrain', [(3, 32, 32)] * 2, 32),
        ('mmpretrain', [(3, 224, 224)] * 2, None),
        ('mmpretrain', [(3, 32, 32), (3, 32, 48)], None),
        ('mmseg', [(3, 64, 128)] * 2, (64, 128)),
        ('mmdet', [(3, 64, 64)] * 2, None),
    ],
)
def test_size_of_the_images(package, shapes, size):
    config = Config(dict(default_scope=package, model=dict()))
    images = [torch.zeros(shape) for shape in shapes]
    set_input_size(config, dict(inputs=images))
    assert config.model.get('input_size') == size
    set_input_size(config, dict(inputs=dict(labelled=images)))
    assert config.model.get('input_size') == size


@pytest.mark.parametrize('sampler', ['DefaultSampler', 'InfiniteSampler'])
def test_short_data_are_gone_through_again(sampler, tmp_path):
    config = tiny_recipes.recipe(tmp_path, tiny_recipes.classifier())
    config.train_dataloader.sampler.type = sampler
    batches = list(islice(own_batches(config), 5))
    assert [len(batch['inputs']) for batch in batches] == [4] * 5
    # The recipe itself has its workers as before.
    assert 'pin_memory' not in config.train_dataloader


def test_data_that_cannot_be_loaded(tmp_path, log):
    config = tiny_recipes.recipe(tmp_path, tiny_recipes.classifier())
    config.train_dataloader.dataset.type = 'NoSuchData'
    assert own_batches(config) is None
    assert 'cannot be loaded here' in log.text and 'NoSuchData' in log.text


def test_there_are_enough():
    names = [name for name, *_ in STOCK]
    assert len(set(names)) == len(names) >= 40
    for name in ('t2t_vit', 'edgenext', 'knet'):
        assert any(name in each for each in names)
    for package in ('mmpretrain', 'mmdet', 'mmseg'):
        assert sum(each.startswith(package) for each in names) >= 12


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp('stock') / 'data'
    write_data(folder)
    return folder


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    out = tmp_path / 'new/config.py'
    with pytest.raises(UnicodeEncodeError):
        write('a = 1\n' * 10_000 + '\ud800', out)
    assert not out.exists()
    write('a = 1', out)
    with pytest.raises(FileExistsError):
        write('b = 2', out)
    assert out.read_text() == 'a = 1'


@pytest.fixture
def folder(tmp_path, data):
    """A folder in which no weights of a whole network stay behind."""
    (tmp_path / 'data').symlink_to(data)
    yield tmp_path
    for file in tmp_path.rglob('*.pth'):
        file.unlink()


@pytest.mark.slow
@pytest.mark.parametrize('line', STOCK, ids=lambda line: line[0])
def test_stock_config(line, folder, monkeypatch):
    monkeypatch.chdir(folder)
    name, *shrink = line
    recipe = load_config(name)
    reduce(recipe, *map(int, shrink))
    recipe.update(val_cfg=None, val_dataloader=None, val_evaluator=None)
    # Laying out the text takes seconds.
    plain = Config(recipe.to_dict(), format_python_code=False)
    Path('recipe.py').write_text(plain.pretty_text)
    torch.save(build_from_config(recipe).state_dict(), 'teacher.pth')
    run_tool(
        monkeypatch,
        'distill.py',
        'recipe.py',
        '--teacher=recipe.py',
        '--checkpoint=teacher.pth',
        '--no-trial',
    )
    config = load_config('diffkd_recipe.py')
    config.work_dir = 'work'
    runner = tiny_recipes.train(config)
    assert runner.iter == 2
    for entry in config.model.distill:
        logged = runner.message_hub.log_scalars
        loss = logged[f'train/distill.{entry}.loss_kd'].current()
        assert loss > 0 and math.isfinite(loss)
