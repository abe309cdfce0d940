import math

import pytest
from mmengine.config import Config
from recipe_files import ROOT

from mmdiffkd.analysis.compatibility import (
    PACKAGES,
    Line,
    Result,
    check,
    check_here,
    import_packages,
    read_list,
    summary,
    table,
)
from mmdiffkd.analysis.stock_data import write_data
from mmdiffkd.utils.config import find_config

LIST = ROOT / 'tools/misc/compatibility.txt'
LINES = read_list(LIST.read_text())
# Stock recipes, networks aside.
RECIPES = {
    'mmpretrain': """
_base_ = 'mmpretrain::shufflenet_v2/shufflenet-v2-1x_16xb64_in1k.py'
model = dict(backbone=dict(widen_factor=0.5), head=dict(num_classes=1000))
""",
    'mmdet': """
_base_ = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'
model = dict(
    backbone=dict(base_channels=4, stem_channels=4),
    neck=dict(in_channels=[4, 8, 16, 32], out_channels=32),
    bbox_head=dict(in_channels=32, feat_channels=32, stacked_convs=1),
)
""",
    'mmseg': """
_base_ = 'mmseg::pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py'
model = dict(
    backbone=dict(base_channels=4, stem_channels=4),
    decode_head=dict(in_channels=32, channels=8),
    auxiliary_head=dict(in_channels=16, channels=8),
)
""",
}


def test_list_is_read():
    text = """
    # a comment
    mmdet::a.py

    mmdet::b.py neck[:]  backbone[-1] shrink=2 | has no gradient  # why
    """
    assert read_list(text) == [
        Line('mmdet::a.py'),
        Line('mmdet::b.py', ('neck[:]', 'backbone[-1]'), 2, 'has no gradient'),
    ]


def test_list_is_large_and_its_configs_exist():
    names = [line.name for line in LINES]
    assert len(set(names)) == len(names) >= 60
    for package in PACKAGES:
        assert sum(name.startswith(f'{package}::') for name in names) >= 18
    assert all(find_config(name) for name in names)
    assert sum(not line.fails for line in LINES) >= 57


@pytest.mark.parametrize(
    ('fails', 'stage', 'reason', 'expected'),
    [
        ('', None, None, True),
        ('no gradient', None, None, False),
        ('', 'training', 'ValueError: no gradient', False),
        ('no gradient', 'training', 'ValueError: no gradient', True),
        ('no gradient', 'training', 'ValueError: no memory', False),
    ],
)
def test_what_is_expected(fails, stage, reason, expected):
    result = Result(Line('a.py', fails=fails), [], stage, reason)
    assert result.expected is expected


def test_table_and_summary():
    results = [
        Result(Line('a.py'), ['neck[:]'], None, None, False, 3.2, 1.25),
        Result(Line('b.py'), [], 'process', 'a | b'),
        Result(Line('c.py'), [], 'training', 'no', recipes_own=True),
    ]
    lines = table(results).splitlines()
    assert lines[2] == '| `a.py` | `neck[:]` | works | 1.2 |'
    assert lines[3] == r'| `b.py` |  | process: a \| b | nan |'
    assert "the recipe's own, training: no" in lines[4]
    text = summary(results)
    assert text.startswith('1 of 2 work.') and text.endswith(': 1.')


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp('compatibility') / 'data'
    write_data(folder)
    return folder


def here(tmp_path, monkeypatch, data, recipe, plain=False, taps=()):
    """The result of a check in this process."""
    (tmp_path / 'data').symlink_to(data)
    file = tmp_path / 'recipe.py'
    file.write_text(recipe)
    monkeypatch.chdir(tmp_path)
    return check_here(Line(str(file), taps), plain)


@pytest.mark.slow
@pytest.mark.parametrize('package', RECIPES)
def test_works(tmp_path, monkeypatch, data, package):
    recipe = RECIPES[package]
    result = here(tmp_path, monkeypatch, data, recipe)
    assert result['stage'] is result['reason'] is None
    assert result['taps'] and result['memory'] > 0


@pytest.mark.slow
def test_works_without_the_distiller(tmp_path, monkeypatch, data):
    recipe = RECIPES['mmseg']
    result = here(tmp_path, monkeypatch, data, recipe, plain=True)
    assert result['stage'] is None
    log = Config.fromfile(tmp_path / 'recipe.py')
    assert log.model.type == 'EncoderDecoder'
    assert not (tmp_path / 'distilled.py').exists()


def test_failure_has_stage_and_reason(tmp_path, monkeypatch, data):
    recipe = RECIPES['mmdet']
    result = here(tmp_path, monkeypatch, data, recipe, taps=('nek',))
    assert result['stage'] == 'training'
    assert "has no module 'nek'" in result['reason']


def test_processes(tmp_path):
    line = Line('mmdet::no/such.py')
    result = check(line, tmp_path)
    assert (result.stage, result.recipes_own) == ('config', True)
    assert 'ships no config' in result.reason
    assert math.isfinite(result.memory)
    assert len(list(tmp_path.glob('*.log'))) == 2
    result = check(Line('mmdet::no/other.py', fails='more than'), tmp_path, 0)
    assert (result.stage, result.expected) == ('process', True)
    assert result.reason == 'took more than 0 s'


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    import_packages(LINES)
    return tmp_path_factory.mktemp('stock')


@pytest.mark.slow
@pytest.mark.parametrize('line', LINES, ids=lambda line: line.name)
def test_stock_config(folder, line):
    result = check(line, folder)
    assert result.expected, result.outcome
