import tiny_recipes
from report_runs import distilled, write_run

from mmdiffkd.analysis.macs import get_costs, readable
from mmdiffkd.analysis.report.costs import costs_of_runs
from mmdiffkd.analysis.report.run import read_run


def test_a_plain_recipe_is_counted_for_images_of_the_distillers(tmp_path):
    recipes = {
        'plain': tiny_recipes.recipe(tmp_path, tiny_recipes.classifier()),
        'distilled': distilled(tmp_path),
        'none': None,
    }
    plain, distiller, none = costs_of_runs(
        [
            read_run(write_run(tmp_path / name, config=config), name)
            for name, config in recipes.items()
        ]
    )
    expected = get_costs(recipes['distilled'])
    macs = readable(expected['deployed']['macs'])
    assert [row['part'] for row in distiller['rows']] == [
        'deployed',
        'teacher',
        'necks of feature',
    ]
    assert plain['rows'][0]['macs'] == distiller['rows'][0]['macs'] == macs
    assert plain['image'] == distiller['image']
    ratio = f'{expected["step_ratio"]:.2f} times the arithmetic'
    assert distiller['step'].startswith(ratio)
    assert plain['step'] == none['step'] == '0.125 s (median)'
    assert (none['rows'], none['reason']) == ([], 'there is no config.')


def test_memory(tmp_path):
    lines = [{'memory': n, 'epoch': 1, 'step': n} for n in (1500, 1200)]
    run = read_run(write_run(tmp_path / 'run', lines), 'run')
    (costs,) = costs_of_runs([run])
    assert costs['step'].endswith('at most 1,500 MB of GPU memory')
