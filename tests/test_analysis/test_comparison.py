import pytest
from stand_in_tools import calls, write_stand_ins

from mmdiffkd.analysis import training
from mmdiffkd.analysis.comparison import (
    default_metric,
    metric_of,
    plan,
    read_variants,
    train_and_evaluate,
    weighted_rows,
)
from mmdiffkd.analysis.training import Run


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """A folder with stand-ins for the tools and two configs."""
    write_stand_ins(tmp_path)
    monkeypatch.setattr(training, 'TOOLS', tmp_path)
    return tmp_path


def test_variants_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'grid.py').write_text(
        "variants = {'a': ('a.py', {})}\nval = {'b': ('a.py', {'c': 1})}\n"
    )
    assert read_variants('grid.py') == {'a': ('a.py', {})}
    assert read_variants('grid.py:val') == {'b': ('a.py', {'c': 1})}
    with pytest.raises(ValueError, match="dict 'x'.*has variants, val: write"):
        read_variants('grid.py:x')
    with pytest.raises(ValueError, match='grids.py:val: there is no file'):
        read_variants('grids.py:val')


def test_rows_by_weight():
    def row(label, weight):
        return f'{label}.py', {'weight': weight}

    chosen, grid = weighted_rows('ab', row, {'b': 3.0}, (0.3, 1.0))
    assert chosen == {
        'a': ('a.py', {'weight': 1.0}),
        'b': ('b.py', {'weight': 3.0}),
    }
    assert list(grid) == [
        'a, weight 0.3',
        'a, weight 1',
        'b, weight 0.3',
        'b, weight 1',
    ]
    assert grid['b, weight 0.3'] == ('b.py', {'weight': 0.3})


def test_plan(fake):
    plain, distiller = str(fake / 'plain.py'), str(fake / 'distiller.py')
    runs = plan(
        {'a b/c': (plain, {}), 'd': (distiller, {'x': 1})},
        range(2),
        fake / 'out',
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
    assert runs['a b/c', 0].options == {
        'x': 0,
        'y': 0,
        'randomness.seed': 0,
    }
    assert runs['d', 1].options == {
        'x': 1,
        'y': 0,
        'randomness.seed': 1,
        'model.teacher.checkpoint': 't.pth',
    }


def test_a_run_begins_with_another_of_its_seed(fake):
    own = {'load_from': 'before/seed_{seed}/epoch_4.pth', 'x': 1}
    runs = plan({'a': (str(fake / 'plain.py'), own)}, range(2), fake / 'out')
    assert [run.options['load_from'] for run in runs.values()] == [
        'before/seed_0/epoch_4.pth',
        'before/seed_1/epoch_4.pth',
    ]
    assert runs['a', 1].options['x'] == 1


def test_one_checkpoint_for_several_teachers(fake):
    config = fake / 'two.py'
    config.write_text('model = dict(teachers=dict(a=dict(), b=dict()))')
    arguments = {'two': (str(config), {})}, [0], fake / 'out'
    assert list(plan(*arguments)) == [('two', 0)]
    with pytest.raises(ValueError, match=r'teachers\.a, teachers\.b.*Leave'):
        plan(*arguments, 't.pth')


@pytest.mark.parametrize(
    'split, expected, evaluations', [('val', 64.0, 0), ('test', 44.0, 1)]
)
def test_split(fake, split, expected, evaluations):
    """The last validation, or the last checkpoint on the test data."""
    run = Run(str(fake / 'plain.py'), fake / 'run', {'randomness.seed': 4})
    for _ in range(2):
        result = train_and_evaluate(run, split)
        assert metric_of(result, 'accuracy/top1') == expected
        assert result['seconds_per_step'] == 0.2
    assert len(calls(fake)) == 1
    assert (fake / 'evaluations').exists() == bool(evaluations)
    if evaluations:
        assert len(calls(fake, 'evaluations')) == evaluations


def test_the_metric_is_the_packages(fake):
    config = fake / 'plain.py'
    assert default_metric(str(config)) == 'accuracy/top1'
    config.write_text("default_scope = 'mmdet'")
    assert default_metric(str(config)) == 'coco/bbox_mAP'
    # A fraction, in per cent.
    result = {'metrics': {'coco/bbox_mAP': 0.25}}
    assert metric_of(result, 'coco/bbox_mAP') == 25.0
