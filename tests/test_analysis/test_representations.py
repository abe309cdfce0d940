import pytest
import tiny_recipes
import torch
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from recipe_files import write_recipe
from tiny_teachers import PLAIN

from mmdiffkd.analysis.calibration import CalibrationError
from mmdiffkd.analysis.representations import compare, describe
from mmdiffkd.analysis.similarity import linear_cka
from mmdiffkd.models.distillers.teacher import build_from_config
from mmdiffkd.utils import load_config


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A recipe, a teacher and a student of other weights."""
    folder = tmp_path_factory.mktemp('recipe')
    write_recipe(folder, teacher=str(folder / 'teacher.pth'))
    # So that it gives the same figures as the plain network.
    with (folder / 'distiller.py').open('a') as file:
        file.write(f'model["teacher"].update({PLAIN})\n')
    config = load_config(folder / 'plain.py')
    for seed, name in enumerate(('teacher.pth', 'student.pth')):
        torch.manual_seed(seed)
        network = build_from_config(config)
        # The small initial weights would leave every image at 50 %.
        torch.nn.init.normal_(network.head.fc.weight)
        torch.save(network.state_dict(), folder / name)
    return folder


@pytest.fixture(scope='module')
def result(folder):
    config = load_config(folder / 'distiller.py')
    names = [str(folder / n) for n in ('teacher.pth', 'student.pth')]
    return compare(config, names)


def observe(folder, checkpoint):
    """Pooled features, probabilities and labels of the validation data."""
    config = load_config(folder / 'plain.py')
    network = build_from_config(config).eval()
    network.load_state_dict(torch.load(folder / checkpoint))
    init_default_scope(config.default_scope)
    features, logits, labels = [], [], []
    with torch.no_grad():
        for batch in Runner.build_dataloader(config.val_dataloader):
            data = network.data_preprocessor(batch, False)
            maps = network.backbone(data['inputs'])
            features.append(maps[-1].mean(dim=(2, 3)))
            logits.append(network.head.fc(features[-1]))
            labels += [s.gt_label for s in data['data_samples']]
    return (
        torch.cat(features),
        torch.cat(logits).double().softmax(dim=1),
        torch.cat(labels),
    )


def test_numbers(folder, result):
    (ours, probabilities, labels), (theirs, *_) = (
        observe(folder, name) for name in ('student.pth', 'teacher.pth')
    )
    student = result['students'][1]
    assert result['images'] == len(labels) == 4
    assert student['cka'] == [pytest.approx(linear_cka(ours, theirs))]
    calibration = CalibrationError()
    calibration.update(probabilities, labels)
    error = calibration.compute()['calibration_error']
    assert student['calibration_error'] == pytest.approx(error)
    right = (probabilities.argmax(dim=1) == labels).double()
    assert student['accuracy'] == pytest.approx(100 * right.mean().item())
    assert 0 < student['cka'][0] < 1


def test_split(folder, result, slow_items, capsys):
    """The data loaders are read by their names."""
    config = load_config(folder / 'distiller.py')
    config.val_dataloader.dataset.data_prefix = 'train'
    names = [str(folder / n) for n in ('teacher.pth', 'student.pth')]
    assert compare(config, names) == result
    said = capsys.readouterr().err
    assert 'Comparison of the features: 2 of ' in said
    of_val = compare(config, names, split='val')['students'][1]['cka']
    assert of_val != result['students'][1]['cka']


def test_the_teacher_resembles_itself(result):
    copy = dict(result['students'][0])
    assert copy.pop('checkpoint').endswith('teacher.pth')
    assert copy.pop('cka') == [pytest.approx(1)]
    assert copy == result['teacher']
    assert result['teacher'] != {
        key: result['students'][1][key] for key in result['teacher']
    }


@pytest.mark.parametrize(
    'changes, weights, reason',
    [
        ({'head.num_classes': 3}, 'head.fc', 'it has 3 classes, the student'),
        ({'head': None}, 'head.fc', 'it has no head that predicts'),
        ({}, None, "Class 0 is 'second' in its checkpoint and 'first' in"),
    ],
    ids=['another number', 'no head', 'other names'],
)
def test_teacher_that_is_not_evaluated(
    folder, tmp_path, result, changes, weights, reason
):
    """Its features are compared as ever."""
    config = load_config(folder / 'distiller.py')
    teacher = load_config(folder / 'plain.py')
    teacher.merge_from_dict({f'model.{k}': v for k, v in changes.items()})
    state = torch.load(folder / 'teacher.pth')
    if weights is not None:
        state = {k: v for k, v in state.items() if not k.startswith(weights)}
    path = str(tmp_path / 'other.pth')
    names = dict(dataset_meta=dict(classes=['second', 'first']))
    torch.save(dict(state_dict=state, meta=names), path)
    config.model.teacher = dict(
        config=teacher, checkpoint=path, strict=False, **PLAIN
    )
    found = compare(config, [str(folder / 'student.pth')])
    assert reason in found['teacher']['not_evaluated']
    assert found['students'] == result['students'][1:]
    *_, row, last = describe(found).splitlines()
    assert row.endswith('student.pth') and reason in last


@pytest.mark.parametrize(
    'config, checkpoint, entry, error, message',
    [
        ('plain', 'student', None, ValueError, 'no `model.distill`'),
        ('distiller', 'student', 'featur', ValueError, 'feature'),
        ('distiller', 'none', None, FileNotFoundError, 'none.pth'),
    ],
)
def test_errors(folder, config, checkpoint, entry, error, message):
    config = load_config(folder / f'{config}.py')
    with pytest.raises(error, match=message):
        compare(config, [str(folder / f'{checkpoint}.pth')], entry)


@pytest.mark.parametrize('kind', ['input_size', 'module'])
def test_a_teacher_that_takes_other_images_is_refused(folder, kind):
    config = load_config(folder / 'distiller.py')
    config.model.teacher.checkpoint = None
    if kind == 'module':
        config.model.teacher = dict(
            module='torchvision.models.resnet18', kwargs={}, checkpoint=None
        )
        entry = config.model.distill.feature
        entry.student_at, entry.teacher_at = entry.pop('at'), 'layer1'
        entry.neck = dict(type='ProjectionNeck')
    else:
        config.model.teacher.input_size = 24
    with pytest.raises(ValueError, match='`teacher`, which has an `input_si'):
        compare(config, [])


def test_tokens_are_averaged_without_the_class_token(folder):
    transformer = tiny_recipes.transformer()
    transformer['head']['topk'] = (1,)
    plain = load_config(folder / 'plain.py')
    config = load_config(folder / 'distiller.py')
    for key in ('backbone', 'neck', 'head'):
        plain.model[key] = transformer[key]
        config.model.student[key] = transformer[key]
    config.model.teacher.config = plain.to_dict()
    config.model.distill.feature.at = 'backbone.ln1'
    networks = [build_from_config(plain).eval() for _ in range(2)]
    names = [str(folder / f'tokens{i}.pth') for i in range(2)]
    for network, name in zip(networks, names):
        torch.save(network.state_dict(), name)
    config.model.teacher.checkpoint = names[0]
    (found,) = compare(config, names[1:])['students'][0]['cka']

    tokens = [[], []]
    for network, kept in zip(networks, tokens):
        network.backbone.ln1.register_forward_hook(
            lambda module, args, output, kept=kept: kept.append(output)
        )
    init_default_scope(plain.default_scope)
    with torch.no_grad():
        for batch in Runner.build_dataloader(plain.test_dataloader):
            for network in networks:
                network(network.data_preprocessor(batch, False)['inputs'])
    teacher, student = (torch.cat(kept)[:, 1:].mean(1) for kept in tokens)
    assert found == pytest.approx(linear_cka(student, teacher), rel=1e-4)
