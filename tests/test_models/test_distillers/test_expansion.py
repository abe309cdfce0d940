import pytest
import tiny_detectors
import tiny_recipes
import tiny_segmenters
from mmengine.registry import MODELS as MMENGINE_MODELS
from torch import nn

from mmdiffkd.models.distillers.expansion import (
    candidates,
    expand,
    is_preset,
    structure_of,
)

SHAPES = [(3, 224, 224)]


def build(model):
    return MMENGINE_MODELS.build(model)


@pytest.fixture(scope='module')
def classifier():
    return build(tiny_recipes.classifier())


@pytest.fixture(scope='module')
def retinanet():
    return build(tiny_detectors.detector('retinanet'))


def test_what_names_a_preset():
    assert is_preset('diffkd') and is_preset(dict(preset='diffkd'))
    assert not is_preset(dict(feature=dict(at='backbone')))
    assert not is_preset(dict(preset=dict(at='backbone')))
    assert not is_preset(dict(preset=None)) and not is_preset({})


def test_structures(classifier, retinanet):
    headless = tiny_recipes.classifier()
    headless['head'] = None
    expected = {
        'classifier': classifier,
        'plain backbone': build(headless),
        'one-stage detector': retinanet,
        'two-stage detector': build(tiny_detectors.detector('cascade')),
        'DETR': build(tiny_detectors.detector('detr')),
        'segmentor': build(tiny_segmenters.segmenter('ocrnet')),
    }
    for name, network in expected.items():
        assert structure_of(network) == name
    assert structure_of(nn.Linear(2, 2)) == 'plain backbone'


def test_changes(classifier):
    extra = dict(at='backbone.layer1', loss=dict(type='ATLoss'))
    found = expand(
        dict(
            preset='diffkd',
            weight=2,
            logits=None,
            feature=dict(
                at='backbone.layer2',
                neck=dict(latent_channels=8),
                weight=0.5,
            ),
            extra=extra,
        ),
        classifier,
        classifier,
        SHAPES,
    )
    assert found.entries == dict(
        feature=dict(
            at='backbone.layer2',
            neck=dict(type='DiffKDNeck', latent_channels=8),
            loss=dict(type='MSELoss'),
            weight=1.0,
        ),
        extra=extra,
    )


def test_one_network_may_be_tapped_elsewhere(classifier):
    changed = dict(preset='mse', feature=dict(student_at='backbone.layer2'))
    found = expand(changed, classifier, classifier, SHAPES)
    assert found.entries['feature']['student_at'] == 'backbone.layer2'
    assert found.entries['feature']['teacher_at'] == 'backbone[-1]'


def test_another_type_replaces_what_it_deletes(classifier):
    loss = dict(_delete_=True, type='ATLoss')
    changed = dict(preset='dist', logits=dict(loss=loss))
    found = expand(changed, classifier, classifier, SHAPES)
    assert found.entries['logits']['loss'] == dict(type='ATLoss')
    # The preset itself stays as it was.
    again = expand('dist', classifier, classifier, SHAPES)
    assert again.entries['logits']['loss']['type'] == 'DISTLoss'


def test_text_can_be_pasted():
    network = build(tiny_detectors.detector('fcos'))
    found = expand(dict(preset='diffkd', weight=0.5), network, network, SHAPES)
    text, values = found.text(), {}
    exec(text, values)
    assert values['distill'] == found.entries
    exec(f'model = dict(\n{found.text(4)}\n)', values)
    assert values['model'] == dict(distill=found.entries)
    assert all(len(line) <= 79 for line in text.splitlines())
    assert "# The preset 'diffkd' for a one-stage detector. DiffKD" in text
    assert '    # Several maps, from the finest to the coarsest.' in text


def test_a_first_part_of_the_pyramid(classifier, retinanet):
    found = expand('pkd', retinanet, retinanet, SHAPES)
    assert found.entries['fpn']['at'] == 'neck[:4]'
    found = expand('reviewkd', classifier, classifier, SHAPES)
    assert found.entries['stages']['at'] == [
        f'backbone.layer{number}' for number in (1, 2, 3)
    ]


def test_without_a_pyramid_the_last_map():
    network = build(tiny_detectors.detector('detr'))
    found = expand('diffkd', network, network, SHAPES)
    assert found.entries['fpn']['at'] == 'backbone[-1]'
    assert found.reasons['fpn'].startswith('the map of the image')


@pytest.mark.parametrize(
    'names, reason',
    [
        (('retinanet', 'fcos'), 'may differ in kind'),
        (('gfl', 'gfl'), "where the student and the teacher have 'boxes'"),
        (('gfl', 'retinanet'), "where the student has 'boxes'"),
        (('cascade', 'cascade'), 'want an entry each'),
    ],
)
def test_boxes_are_left_out(names, reason):
    networks = [build(tiny_detectors.detector(name)) for name in names]
    found = expand('diffkd', *networks, SHAPES)
    assert list(found.entries) == ['fpn']
    assert reason in found.reasons['reg']
    assert "    # 'reg' is left out: " in found.text()


def test_boxes_that_are_asked_for_are_not_left_out():
    network = build(tiny_detectors.detector('gfl'))
    changed = dict(preset='diffkd', reg=dict(weight=2.0))
    with pytest.raises(ValueError, match="have 'boxes'.*reg=None without it"):
        expand(changed, network, network, SHAPES)
    changed['reg']['at'] = 'bbox_head.gfl_reg'
    found = expand(changed, network, network, SHAPES)
    assert found.entries['reg']['weight'] == 2.0


def test_a_model_of_timm(classifier):
    pytest.importorskip('timm')
    model = dict(
        type='TimmClassifier',
        _scope_='mmpretrain',
        model_name='resnet18',
        num_classes=2,
    )
    found = expand('diffkd', classifier, build(model), SHAPES).entries
    assert found['feature']['student_at'] == 'backbone[-1]'
    assert found['feature']['teacher_at'] == 'model.layer4'
    assert found['logits']['student_at'] == 'head.fc'
    assert found['logits']['teacher_at'] == 'model.fc'


def test_a_teacher_without_a_head(classifier):
    headless = tiny_recipes.classifier()
    headless['head'] = None
    found = expand('diffkd', classifier, build(headless), SHAPES)
    assert list(found.entries) == ['feature']
    with pytest.raises(ValueError, match='no preset for a plain backbone'):
        expand('kd', classifier, build(headless), SHAPES)


@pytest.mark.parametrize(
    'distill, message',
    [
        ('difkd', "`distill` is 'difkd', which is no preset. Did you mean"),
        (dict(preset=3), '`distill` is 3, which is no preset'),
        (dict(preset=['kd']), r"`distill` is \['kd'\], which is no preset"),
        ('fgd', 'no preset for a classifier .*Use one of .*reviewkd'),
        (dict(preset='kd', logit=None), 'logit` is None.*mean .logits'),
        (dict(preset='kd', weight='2'), "`distill.weight` is '2'. Use a"),
    ],
)
def test_errors(classifier, distill, message):
    with pytest.raises(ValueError, match=message):
        expand(distill, classifier, classifier, SHAPES)


def test_two_tasks(classifier, retinanet):
    with pytest.raises(ValueError, match='for classification, and the teac'):
        expand('mse', classifier, retinanet, SHAPES)


def test_an_unknown_head_lists_what_there_is(classifier):
    model = tiny_recipes.classifier()
    network = build(model)

    class Head(type(network.head)):
        def forward(self, feats):
            return self.fc(feats[-1])

    network.head.__class__ = Head
    with pytest.raises(ValueError) as caught:
        expand('kd', classifier, network, SHAPES)
    text = str(caught.value)
    assert "it is not known where the teacher has 'logits'" in text
    assert 'logits=dict(student_at=..., teacher_at=...)' in text
    assert 'modules of the teacher give' in text
    assert 'of the student give' not in text
    assert '\n  head.fc: (2, 2)' in text
    found = expand(
        dict(preset='kd', logits=dict(teacher_at='head.fc')),
        classifier,
        network,
        SHAPES,
    )
    assert found.entries['logits']['at'] == 'head.fc'


def test_candidates_leave_no_hook(classifier):
    network = build(tiny_recipes.classifier())
    found = candidates(network, SHAPES)
    assert found['backbone.layer3'] == [(2, 16, 56, 56)]
    assert found['head.fc'] == [(2, 2)]
    assert not any(
        module._forward_hooks
        for path, module in network.named_modules()
        if path != 'head'
    )


def test_in_a_distiller(build, log):
    entries = dict(preset='diffkd', feature=dict(weight=0.5), logits=None)
    model = build(tiny_recipes.distiller(distill=entries))
    assert list(model.distill) == ['feature']
    assert model.distill['feature'].weight == 0.5
    assert model.expansion.entries['feature']['at'] == 'backbone[-1]'
    assert 'distill = dict(\n' in log.text
    plain = build(tiny_recipes.distiller())
    assert plain.expansion is None
    pasted = build(tiny_recipes.distiller(distill=model.expansion.entries))
    assert pasted.state_dict().keys() == model.state_dict().keys()
