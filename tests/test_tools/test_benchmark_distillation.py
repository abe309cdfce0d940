import json
import os
from collections import OrderedDict

import pytest
import tiny_recipes
import torch
from mmengine.logging import MMLogger
from recipe_files import run_tool

from mmdiffkd.analysis import benchmark_neck
from mmdiffkd.analysis.benchmark_step import TEACHERS

TOOL = 'analysis_tools/benchmark_distillation.py'
ROW = {'part', 'ms', 'ms_low', 'ms_high', 'page_faults', 'peak_mib'}
ROW |= {'gmacs', 'all_ms'}
SMALL_CASES = {
    'maps': ((4, 6, 5, 5), {'latent_channels': 8}),
    'logits': ((4, 10), {'feature': 'vector'}),
}


@pytest.fixture
def small(monkeypatch):
    """Sizes that take milliseconds."""
    # A logger made in an earlier test would write to that test's stdout.
    monkeypatch.setattr(MMLogger, '_instance_dict', OrderedDict())
    monkeypatch.setattr(benchmark_neck, 'CASES', SMALL_CASES)
    monkeypatch.setattr(benchmark_neck, 'GROWTH_SHAPE', (4, 8, 6, 6))
    growth = {k: values[:2] for k, values in benchmark_neck.GROWTH.items()}
    monkeypatch.setattr(benchmark_neck, 'GROWTH', growth)


@pytest.fixture
def run(small, monkeypatch, tmp_path, capsys):
    """Run the command; gives what it printed and its JSON."""

    def function(*arguments):
        out = tmp_path / 'out' / 'result.json'
        arguments = [*arguments, '--json', out]
        arguments += ['--repetitions', '2', '--device', 'cpu']
        run_tool(monkeypatch, TOOL, *arguments)
        return capsys.readouterr().out, json.loads(out.read_text())

    return function


@pytest.fixture
def recipe(tmp_path):
    """Write the recipe of a tiny distillation; gives the file."""

    def function(**changes):
        distill = dict(
            feature=tiny_recipes.feature_entry(),
            logits=tiny_recipes.logits_entry(),
        )
        model = tiny_recipes.distiller(distill=distill, **changes)
        path = tmp_path / 'recipe.py'
        tiny_recipes.recipe(tmp_path, model).dump(path)
        return path

    return function


def gmacs(result):
    return {row['part']: row['gmacs'] for row in result['rows']}


def test_distiller(run, recipe, tmp_path):
    plot = tmp_path / 'plots' / 'step.png'
    teacher = tiny_recipes.teacher(checkpoint='absent.pth')
    text, result = run(recipe(teacher=teacher), '--plot', plot)
    parts = ['student', 'teacher, forward']
    parts += ['distill.feature', 'distill.logits', 'whole step']
    assert [row['part'] for row in result['rows']] == parts
    for row in result['rows']:
        assert row.keys() == ROW
        assert 0 < row['ms_low'] <= row['ms'] <= row['ms_high']
        assert len(row['all_ms']) == 2
        assert row['peak_mib'] > 0
        assert f'| {row["part"]} | {row["ms"]:.2f} |' in text
    student, teacher, *_, whole = result['rows']
    ratio = whole['ms'] / (student['ms'] + teacher['ms'])
    assert result['ratio'] == pytest.approx(ratio)
    assert f'over student and teacher forward: {ratio:.2f}' in text
    assert f'{result["rest_faults"]:,} page faults.' in text
    assert result['batch'] == [4, 3, 16, 16]
    assert result['environment']['torch'] == torch.__version__
    assert plot.stat().st_size > 5000


def test_parts_make_up_the_whole(run, recipe):
    """The whole step has the arithmetic of its parts, and no more."""
    _, result = run(recipe(), '--batch-size', 2, '--input-size', 32, 16)
    assert result['batch'] == [2, 3, 32, 16]
    *parts, whole = gmacs(result).values()
    assert all(part > 0 for part in parts)
    assert whole == pytest.approx(sum(parts), rel=1e-6)


def test_teacher_is_as_fast_as_the_config_says(run, recipe):
    with pytest.raises(SystemExit, match='teacher.dtype'):
        run(recipe(), '--cfg-options', 'model.teacher.dtype=bf16')
    _, plain = run(recipe())
    _, fast = run(recipe(), '--cfg-options', 'model.distill.logits=None')
    assert 'distill.logits' not in gmacs(fast)
    # Its head is not run for nothing.
    part = 'teacher, forward'
    assert gmacs(fast)[part] < gmacs(plain)[part]


def test_teacher_with_its_switches(run, recipe):
    text, result = run(recipe(), '--teacher')
    rows = result['rows']
    assert [row['part'] for row in rows] == [*TEACHERS]
    assert '| of the plain time |' in text
    for row in rows:
        assert row['ratio'] == pytest.approx(row['ms'] / rows[0]['ms'])
        assert row['gmacs'] == rows[0]['gmacs'] > 0


@pytest.mark.slow
def test_amp_is_what_is_measured(run, recipe):
    _, result = run(recipe(), '--amp', 'bf16')
    assert result['environment']['amp'] == 'torch.bfloat16'
    _, result = run('--cases', '--amp', 'bf16')
    assert all({'float32', 'half'} < row.keys() for row in result['compared'])


@pytest.mark.slow
def test_cases(run, tmp_path):
    plot = tmp_path / 'cases.png'
    text, result = run('--cases', '--runs', 3, '--plot', plot)
    assert [row['case'] for row in result['compared']] == [*SMALL_CASES]
    for row in result['compared']:
        assert row.keys() == {'case', 'float32'}
        assert row['float32'].keys() == ROW
    # Columns of what was not measured are left out.
    assert '|  | float32, ms | float32, MiB |' in text
    assert plot.stat().st_size > 5000


@pytest.mark.slow
def test_compiled_beside_eager(run, monkeypatch):
    compiled = []

    def compile_(function, backend):
        assert backend == 'inductor'
        compiled.append(function)
        return function

    monkeypatch.setattr(torch, 'compile', compile_)
    text, result = run('--cases', '--compile', '--amp', 'bf16')
    assert len(compiled) == 2 * len(SMALL_CASES)
    for row in result['compared']:
        for part in ('float32', 'half'):
            eager, fused = row[part], row[f'{part}_compiled']
            assert eager.keys() == ROW
            assert fused['eager_ratio'] == fused['ms'] / eager['ms']
    assert '| float32, compiled / eager | half, compiled / eager |' in text


def test_options(run):
    text, result = run('--options')
    rows = result['rows']
    assert [row['part'] for row in rows] == [*benchmark_neck.OPTIONS]
    plain, checkpointed, *_, fewest, _ = rows
    assert checkpointed['peak_mib'] < plain['peak_mib']
    assert checkpointed['gmacs'] > plain['gmacs'] > fewest['gmacs']
    for row in rows:
        for ratio, key in (('ratio', 'ms'), ('memory_ratio', 'peak_mib')):
            assert row[ratio] == pytest.approx(row[key] / plain[key])
    assert '| of the plain time |' in text
    assert 'of the released' not in text


@pytest.mark.slow
def test_growth(run, tmp_path):
    plot = tmp_path / 'growth.png'
    _, result = run('--growth', '--plot', plot)
    growth = result['growth']
    for quantity, values in benchmark_neck.GROWTH.items():
        rows = [row for row in growth if row['quantity'] == quantity]
        assert [row['value'] for row in rows] == [*values]
        last = rows[-1]
        assert last['predicted_ms'] == pytest.approx(last['ms'])
        assert last['predicted_mib'] == pytest.approx(last['peak_mib'])
        if quantity in ('levels', 'batch size'):
            for row in rows:
                share = row['value'] / last['value']
                for key in ('gmacs', 'kept_mib'):
                    expected = pytest.approx(share * last[key], rel=0.05)
                    assert row[key] == expected, (row['part'], key)
    assert plot.stat().st_size > 5000


def test_overhead(run):
    text, result = run('--overhead')
    by_hand, by_distiller = result['rows']
    assert by_hand['gmacs'] == by_distiller['gmacs'] > 0
    added = by_distiller['ms'] - by_hand['ms']
    assert result['overhead_ms'] == pytest.approx(added)
    assert f'adds {added:.2f} ms a step' in text


def test_tables_go_into_a_document(run, tmp_path):
    document = tmp_path / 'document.md'
    document.write_text('a\n<!-- x:begin -->\nold\n<!-- x:end -->\nb\n')
    text, _ = run('--cases', '--into', document, 'x')
    head, tail = 'a\n<!-- x:begin -->\n', '<!-- x:end -->\nb\n'
    assert document.read_text() == head + text + tail
    with pytest.raises(SystemExit, match='<!-- y:begin -->.*Add the two'):
        run('--cases', '--into', document, 'y')


def test_reference_that_is_not_there(run, recipe, tmp_path):
    for what in ('--cases', recipe()):
        with pytest.raises(SystemExit, match='git clone https://github.com'):
            run(what, '--reference', tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(
    'MMDIFFKD_REFERENCE' not in os.environ,
    reason='MMDIFFKD_REFERENCE names no checkout of the released code',
)
def test_released_module_does_the_same_arithmetic(run, recipe):
    folder = os.environ['MMDIFFKD_REFERENCE']
    _, cases = run('--cases', '--reference', folder)
    options = run('--options', '--reference', folder)[1]['rows']
    assert options[0]['gmacs'] == pytest.approx(options[-1]['gmacs'], rel=1e-6)
    assert options[-1]['memory_of_released'] == 1
    text, config = run(recipe(), '--reference', folder)
    for row in cases['compared'] + config['compared']:
        ours, released = row['float32'], row['released']
        assert ours['gmacs'] == pytest.approx(released['gmacs'], rel=1e-6)
        assert ours['ratio'] == pytest.approx(ours['ms'] / released['ms'])
        assert ours['memory_ratio'] > 0
    names = [row['case'] for row in config['compared']]
    assert names == ['distill.feature', 'distill.logits']
    assert '| float32 / released |' in text


def test_plain_recipe_is_refused(run, tmp_path):
    path = tmp_path / 'plain.py'
    tiny_recipes.recipe(tmp_path, tiny_recipes.classifier()).dump(path)
    with pytest.raises(SystemExit, match="give a distiller's"):
        run(path)


def test_methods_in_turn(run, recipe, tmp_path):
    plain = tmp_path / 'plain.py'
    tiny_recipes.recipe(tmp_path, tiny_recipes.classifier()).dump(plain)
    both = str(recipe())
    listed = {
        'alone': (str(plain), {}),
        'both entries': (both, {}),
        'one entry': (both, {'model.distill.logits': None}),
    }
    file = tmp_path / 'variants.py'
    file.write_text(f'variants = {listed}')
    text, result = run('--variants', file)
    rows = {row['part']: row for row in result['rows']}
    assert list(rows) == list(listed)
    for row in rows.values():
        assert row['ratio'] == row['ms'] / rows['alone']['ms']
        assert f'| {row["part"]} | {row["ratio"]:.2f}x |' in text
    whole = run(both)[1]['rows'][-1]['gmacs']
    assert rows['both entries']['gmacs'] == pytest.approx(whole, rel=1e-6)
    work = [row['gmacs'] for row in rows.values()]
    assert work[0] < work[2] < work[1]
    file.write_text(f'variants = {dict(alone=(str(plain), {}))}')
    with pytest.raises(SystemExit, match='none of alone distils'):
        run('--variants', file)


@pytest.mark.parametrize(
    'arguments, message',
    [
        ([], 'give a CONFIG, --variants FILE, or one of --cases, --options'),
        (['--teacher', '--cases'], '--teacher needs a CONFIG'),
        (['--cases', '--growth'], 'give a CONFIG, --variants FILE'),
        (['--cases', '--runs', '0'], 'must be 1 or more'),
        (['CONFIG', '--input-size', '1', '2', '3'], 'a height and a width'),
    ],
)
def test_arguments_that_do_not_fit(run, capsys, arguments, message):
    with pytest.raises(SystemExit):
        run(*arguments)
    assert message in capsys.readouterr().err
