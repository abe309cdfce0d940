import pytest
import tiny_recipes
import torch
from mmengine.optim import BaseOptimWrapper, build_optim_wrapper
from mmengine.registry import OPTIM_WRAPPERS

import mmdiffkd.engine  # noqa: F401  (registers the constructor)


@pytest.fixture
def distiller(ready):
    return ready(tiny_recipes.distiller())


def wrapper(model, paramwise=None, **changes):
    return build_optim_wrapper(
        model,
        dict(
            constructor='mmdiffkd.OptimWrapperConstructor',
            optimizer=dict(
                type='SGD', lr=0.1, momentum=0.9, weight_decay=0.01
            ),
            **({} if paramwise is None else dict(paramwise_cfg=paramwise)),
            **changes,
        ),
    )


def test_student_first_then_the_necks(distiller):
    groups = wrapper(distiller).optimizer.param_groups
    assert [len(g['params']) for g in groups] == [
        len(list(distiller.student.parameters())),
        len(list(distiller.distill.parameters())),
    ]
    assert groups[1]['lr'] == 0.1 and groups[1]['weight_decay'] == 0.01


def test_multipliers_of_the_necks(distiller):
    made = wrapper(
        distiller, dict(distill_lr_mult=0.5, distill_decay_mult=0.0)
    )
    student, necks = made.optimizer.param_groups
    assert (student['lr'], student['weight_decay']) == (0.1, 0.01)
    assert (necks['lr'], necks['weight_decay']) == (0.05, 0.0)


@OPTIM_WRAPPERS.register_module()
class StepsByItself(BaseOptimWrapper):
    """Takes an optimizer and nothing else, as DeepSpeed's does."""

    def __init__(self, optimizer):
        super().__init__(optimizer)

    update_params = backward = zero_grad = step = None


def test_wrapper_that_cannot_clip(distiller):
    made = wrapper(distiller, type='StepsByItself', clip_grad=None)
    assert isinstance(made, StepsByItself)
    with pytest.raises(ValueError, match='gradient_clipping'):
        wrapper(distiller, type='StepsByItself', clip_grad=dict(max_norm=1))


@pytest.mark.parametrize('value', [-1, 'x'])
def test_bad_multiplier(distiller, value):
    with pytest.raises(ValueError, match='distill_lr_mult'):
        wrapper(distiller, dict(distill_lr_mult=value))


def test_paramwise_options_are_the_students(distiller, build):
    options = dict(norm_decay_mult=0.0, custom_keys=dict(head=dict(lr_mult=2)))
    ours = wrapper(distiller, options).optimizer.param_groups
    necks = [group for group in ours if group.get('distill')]
    ours = ours[: -len(necks)]
    norms = {
        id(p)
        for module in distiller.distill.modules()
        if isinstance(module, torch.nn.modules.batchnorm._NormBase)
        for p in module.parameters()
    }
    assert {g['weight_decay'] for g in necks} == {0.0, 0.01}
    for group in necks:
        without = {id(p) in norms for p in group['params']}
        assert without == {group['weight_decay'] == 0.0}
    plain = build_optim_wrapper(
        build(tiny_recipes.classifier()),
        dict(
            optimizer=dict(
                type='SGD', lr=0.1, momentum=0.9, weight_decay=0.01
            ),
            paramwise_cfg=options,
        ),
    ).optimizer.param_groups
    assert len(ours) == len(plain)
    for a, b in zip(ours, plain):
        assert (a['lr'], a['weight_decay']) == (b['lr'], b['weight_decay'])


def test_recipes_constructor_runs_on_the_bare_student(build):
    student = dict(
        type='ImageClassifier',
        _scope_='mmpretrain',
        backbone=dict(
            type='VisionTransformer',
            arch=dict(embed_dims=8, num_layers=2, num_heads=2,
                      feedforward_channels=16),
            img_size=32,
            patch_size=16,
        ),
        head=dict(type='VisionTransformerClsHead', num_classes=2,
                  in_channels=8),
    )  # fmt: skip
    model = build(
        tiny_recipes.distiller(
            student,
            distill=dict(
                logits=tiny_recipes.logits_entry(
                    student_at='head.layers.head', teacher_at='head.fc'
                )
            ),
            input_size=32,
        )
    )
    made = wrapper(
        model,
        dict(
            student_constructor='mmpretrain.'
            'LearningRateDecayOptimWrapperConstructor',
            layer_decay_rate=0.5,
        ),
    )
    rates = {g['lr'] for g in made.optimizer.param_groups}
    assert rates >= {0.1, 0.05, 0.025}
    assert made.optimizer.param_groups[-1]['distill']


def test_gradients_are_clipped_separately(distiller):
    made = wrapper(distiller, clip_grad=dict(max_norm=1.0))
    for scale, part in ((1e-3, distiller.student), (100, distiller.distill)):
        for parameter in part.parameters():
            parameter.grad = torch.full_like(parameter, scale)
    before = [p.grad.clone() for p in distiller.student.parameters()]
    made._clip_grad()
    norm = torch.nn.utils.get_total_norm(
        [p.grad for p in distiller.distill.parameters()]
    )
    assert norm == pytest.approx(1.0, rel=1e-4)
    for parameter, grad in zip(distiller.student.parameters(), before):
        assert torch.equal(parameter.grad, grad)


@pytest.mark.parametrize('kind', ['OptimWrapper', 'AmpOptimWrapper'])
def test_idle_parameters_do_not_move(ready, kind):
    if kind == 'AmpOptimWrapper' and not torch.cuda.is_available():
        changes = dict(type=kind, dtype='bfloat16')
    else:
        changes = dict(type=kind)
    entry = tiny_recipes.feature_entry(weight=0)
    model = ready(tiny_recipes.distiller(distill=dict(feature=entry)))
    try:
        made = wrapper(model, clip_grad=dict(max_norm=1.0), **changes)
    except AssertionError as error:
        pytest.skip(f'MMEngine: {error}')
    assert type(made).__name__ == kind
    before = [p.clone() for p in model.distill.parameters()]
    student = model.student.head.fc.weight.clone()
    for _ in range(2):
        loss = sum(p.sum() for p in model.student.parameters())
        loss = loss + sum(
            v for d in model.distill.values() for v in d.idle().values()
        )
        made.update_params(loss)
    for parameter, old in zip(model.distill.parameters(), before):
        assert torch.equal(parameter, old)
    assert not torch.equal(model.student.head.fc.weight, student)


def test_plain_model_is_refused(build):
    with pytest.raises(TypeError, match='Leave `optim_wrapper.constructor`'):
        wrapper(build(tiny_recipes.classifier()))
