from mmengine.config import Config
from recipe_files import run_tool, write_recipe


def test_what_is_inherited_is_printed(tmp_path, monkeypatch, capsys):
    recipe = write_recipe(tmp_path)
    saved = tmp_path / 'whole.py'
    run_tool(
        monkeypatch,
        'misc/print_config.py',
        recipe / 'distiller.py',
        f'--save-path={saved}',
        '--cfg-options',
        'model.distill.feature.neck.latent_channels=24',
    )
    printed = capsys.readouterr().out
    assert 'latent_channels=24' in printed
    assert "type='VGG'" in printed
    assert '_base_' not in printed
    whole = Config.fromfile(saved)
    assert whole.model.student.backbone.type == 'VGG'


def test_configs_of_packages_have_names(monkeypatch, capsys):
    run_tool(
        monkeypatch,
        'misc/print_config.py',
        'mmpretrain::resnet/resnet18_8xb32_in1k.py',
    )
    assert "type='ImageClassifier'" in capsys.readouterr().out
