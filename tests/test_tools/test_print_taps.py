from recipe_files import run_tool, write_recipe

TOOL = 'misc/print_taps.py'


def test_taps_of_a_recipe(tmp_path, monkeypatch, capsys):
    recipe = write_recipe(tmp_path)
    run_tool(monkeypatch, TOOL, recipe / 'distiller.py')
    printed = capsys.readouterr().out
    assert '| last_map | backbone.features.' in printed
    assert '| logits | head.fc | (2, 2) |' in printed
    run_tool(
        monkeypatch,
        TOOL,
        recipe / 'plain.py',
        '--cfg-options',
        'model.head.num_classes=3',
    )
    assert '| logits | head.fc | (2, 3) |' in capsys.readouterr().out


def test_the_table(monkeypatch, capsys):
    run_tool(monkeypatch, TOOL)
    printed = capsys.readouterr().out
    assert '| `VGG` | `features.-1` |  | `classifier` |' in printed
    assert '| `RetinaHead`, `RetinaSepBNHead`' in printed
