import pytest
import torch
from recipe_files import run_tool, write_recipe

from mmdiffkd.analysis.gradients import compare
from mmdiffkd.utils import load_config


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A recipe and a checkpoint of its training."""
    folder = write_recipe(tmp_path_factory.mktemp('recipe'))
    with pytest.MonkeyPatch.context() as patch:
        run_tool(
            patch,
            'train.py',
            folder / 'distiller.py',
            f'--work-dir={folder / "work"}',
        )
    return folder


@pytest.fixture(scope='module')
def checkpoint(folder):
    return str(folder / 'work/epoch_1.pth')


def test_more_steps_come_nearer(folder, checkpoint, slow_items, capsys):
    config = load_config(folder / 'distiller.py')
    rows = compare(config, checkpoint, batches=2)
    said = capsys.readouterr().err
    assert 'Comparison of the gradients: 2 of 2 batches' in said
    assert [row['grad_steps'] for row in rows] == [1, 2, 3, 4, 5]
    whole = {'cosine': pytest.approx(1), 'length': pytest.approx(1)}
    for part in ('student', 'denoiser'):
        assert rows[-1][part] == whole
        assert 0 < rows[0][part]['cosine'] < 0.999
    assert rows[3]['denoiser']['cosine'] > rows[0]['denoiser']['cosine']


def test_nothing_is_changed(folder, checkpoint):
    config = load_config(folder / 'distiller.py')
    before = torch.load(checkpoint, weights_only=False)['state_dict']
    first, second = (compare(config, checkpoint, batches=1) for _ in range(2))
    assert first == second
    after = torch.load(checkpoint, weights_only=False)['state_dict']
    for name, tensor in before.items():
        assert torch.equal(after[name], tensor)


def test_errors(folder, checkpoint, tmp_path):
    config = load_config(folder / 'distiller.py')
    plain = str(tmp_path / 'plain.pth')
    torch.save({'state_dict': {}}, plain)
    with pytest.raises(ValueError, match='distill_state_dict'):
        compare(config, plain, 1)
    config.model.distill.feature.neck = dict(type='ProjectionNeck')
    with pytest.raises(ValueError, match='no DiffKDNeck'):
        compare(config, checkpoint, 1)
