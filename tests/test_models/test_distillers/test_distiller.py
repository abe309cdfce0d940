import copy
import inspect
import warnings

import pytest
import tiny_recipes
import torch
from mmengine.model import (
    BaseDataPreprocessor,
    BaseModel,
    ExponentialMovingAverage,
)
from mmengine.runner.checkpoint import get_state_dict
from mmpretrain.structures import DataSample
from tiny_recipes import SIZE, feature_entry, logits_entry
from torch import nn

from mmdiffkd.models.distillers import Distiller
from mmdiffkd.models.distillers.spec import DistillerSpec
from mmdiffkd.registry import MODELS


def batch(model, count=4):
    samples = [DataSample().set_gt_label(i % 2) for i in range(count)]
    images = list(torch.randint(0, 256, (count, 3, SIZE, SIZE)).byte())
    data = dict(inputs=images, data_samples=samples)
    return model.data_preprocessor(data, True)


TWO_ENTRIES = dict(feature=feature_entry(), logits=logits_entry())


@pytest.fixture
def distiller(ready):
    return ready(tiny_recipes.distiller(distill=TWO_ENTRIES))


def test_loss_keeps_the_student_names_and_adds_ours(distiller):
    losses = distiller(**batch(distiller), mode='loss')
    assert set(losses) == {
        'loss',
        'distill.feature.loss_kd',
        'distill.feature.loss_diffusion',
        'distill.feature.loss_autoencoder',
        'distill.logits.loss_kd',
        'distill.logits.loss_diffusion',
    }
    total, _ = distiller.parse_losses(losses)
    assert total.item() == pytest.approx(
        sum(v.item() for v in losses.values()), rel=1e-5
    )
    assert set(distiller.metrics) == {
        f'distill.{name}.gamma{end}'
        for name in ('feature', 'logits')
        for end in ('', '_std')
    }


def test_prediction_is_the_student_alone(distiller):
    distiller.eval()
    data = batch(distiller)
    network = distiller.teacher.network
    network.extract_feat = None
    out = distiller(**data, mode='predict')
    expected = distiller.student(**data, mode='predict')
    for a, b in zip(out, expected):
        assert torch.equal(a.pred_score, b.pred_score)
    logits = distiller(data['inputs'])
    assert torch.equal(logits, distiller.student(data['inputs']))


def test_unknown_attributes_are_the_students(distiller):
    assert distiller.backbone is distiller.student.backbone
    assert distiller.with_neck
    assert distiller.data_preprocessor is distiller.student.data_preprocessor
    with pytest.raises(AttributeError):
        _ = distiller.absent


def test_state_dict_is_the_plain_students(distiller, build):
    plain = build(tiny_recipes.classifier())
    for state in (distiller.state_dict(), get_state_dict(distiller)):
        own = {k for k in state if not k.startswith('distill.')}
        assert own == set(plain.state_dict())
        assert set(state) - own
        assert set(state._metadata) >= set(plain.state_dict()._metadata)
    weights = {k: state[k] for k in own}
    plain.load_state_dict(weights, strict=True)
    assert torch.equal(
        plain.backbone.conv1.weight, distiller.student.backbone.conv1.weight
    )


def test_state_dict_round_trip(distiller, build):
    distiller(**batch(distiller), mode='loss')
    other = build(tiny_recipes.distiller(distill=TWO_ENTRIES))
    other.load_state_dict(distiller.state_dict(), strict=True)
    for (name, a), b in zip(
        distiller.state_dict().items(), other.state_dict().values()
    ):
        assert torch.equal(a, b), name
    assert other._step == distiller._step == 1


def test_plain_weights_load_strictly_and_leave_the_necks(distiller, build):
    plain = build(tiny_recipes.classifier())
    before = distiller.distill.state_dict()
    distiller.load_state_dict(plain.state_dict(), strict=True)
    assert torch.equal(distiller.student.head.fc.weight, plain.head.fc.weight)
    after = distiller.distill.state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items())


def test_loading_complains_about_foreign_keys(distiller):
    state = distiller.state_dict()
    state['backbone.foreign'] = torch.zeros(1)
    with pytest.raises(RuntimeError, match='foreign'):
        distiller.load_state_dict(state, strict=True)


def test_ema_copy_shares_the_teacher_and_keeps_the_names(distiller):
    ema = ExponentialMovingAverage(distiller)
    assert ema.module.teacher is distiller.teacher
    names = {k.removeprefix('module.') for k in ema.state_dict()} - {'steps'}
    assert names == set(distiller.state_dict())
    ema.load_state_dict(ema.state_dict(), strict=True)
    ema.update_parameters(distiller)


def test_teacher_is_not_among_the_parameters(distiller):
    ids = {id(p) for p in distiller.teacher.network.parameters()}
    assert not ids & {id(p) for p in distiller.parameters()}
    assert distiller.teacher.network not in list(distiller.modules())


def test_gradients_reach_student_and_necks_but_not_the_teacher(distiller):
    losses = distiller(**batch(distiller), mode='loss')
    sum(v for k, v in losses.items() if k.startswith('distill')).backward()
    assert distiller.student.backbone.conv1.weight.grad.any()
    for name, parameter in distiller.distill.named_parameters():
        assert parameter.grad is not None, name
    assert all(p.grad is None for p in distiller.teacher.network.parameters())


def test_weight_zero_runs_no_teacher(ready):
    entries = dict(feature=feature_entry(weight=0), other=None)
    model = ready(tiny_recipes.distiller(distill=entries))
    model.teacher.network.extract_feat = None
    losses = model(**batch(model), mode='loss')
    assert losses['distill.feature.loss_kd'] == 0
    assert model.metrics == {}
    assert len(model.idle_parameters()) == len(
        list(model.distill.parameters())
    )
    assert list(model.distill) == ['feature']


def test_construction_and_training_do_not_move_the_global_stream(ready):
    def stream(config):
        torch.manual_seed(5)
        model = ready(config)
        state = torch.get_rng_state()
        data = batch(model)
        model(**data, mode='loss')
        return state, torch.get_rng_state()

    plain = stream(tiny_recipes.classifier(drop_path_rate=0.3))
    ours = stream(
        tiny_recipes.distiller(tiny_recipes.classifier(drop_path_rate=0.3))
    )
    assert all(map(torch.equal, plain, ours))


def test_noise_depends_on_the_step_and_goes_on_after_loading(ready):
    def losses(model, data):
        with torch.no_grad():
            out = model(**data, mode='loss')
        return out['distill.feature.loss_diffusion'].item()

    model = ready(tiny_recipes.distiller())
    # Batch statistics would change with every forward pass; noise alone may.
    for module in model.distill.modules():
        module.momentum = 0.0
    data = batch(model)
    first = [losses(model, data) for _ in range(2)]
    state = copy.deepcopy(model.state_dict())
    first += [losses(model, data)]
    assert len(set(first)) == 3
    torch.manual_seed(0)
    again = ready(tiny_recipes.distiller())
    again.load_state_dict(state)
    assert losses(again, data) == first[2]


def test_tap_without_gradient_is_an_error(ready):
    model = ready(
        tiny_recipes.distiller(
            tiny_recipes.classifier(frozen_stages=2),
            distill=dict(feature=feature_entry(at='backbone[0]')),
        )
    )
    with pytest.raises(ValueError, match='has no gradient.*frozen stages'):
        model(**batch(model), mode='loss')


def test_trajectories_go_from_student_to_teacher(distiller):
    data = batch(distiller)
    state = torch.get_rng_state()
    shown = distiller.trajectories(data['inputs'])
    assert torch.equal(torch.get_rng_state(), state)
    assert list(shown) == ['feature']
    ((*_, (caption, last)),) = shown['feature']
    assert caption == 'teacher' and last.shape == (4, 8, 4, 4)
    assert distiller.training


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_autocast_stays_finite_over_steps(distiller, dtype):
    optimizer = torch.optim.SGD(distiller.parameters(), lr=1e-2)
    for _ in range(3):
        with torch.autocast('cpu', dtype):
            losses = distiller(**batch(distiller), mode='loss')
        total, _ = distiller.parse_losses(losses)
        assert torch.isfinite(total)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()


@pytest.mark.exact
@pytest.mark.slow
@pytest.mark.parametrize('task_weight', [1.0, 0.0])
def test_compiled_step_equals_eager(ready, task_weight):
    def losses(compiled):
        torch.manual_seed(0)
        model = ready(tiny_recipes.distiller(task_weight=task_weight))
        data = batch(model)
        step = model.loss
        if compiled:
            step = torch.compile(step, backend='eager')
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            return step(**data)

    eager, compiled = losses(False), losses(True)
    assert eager.keys() == compiled.keys()
    for key, value in eager.items():
        assert torch.allclose(value, compiled[key], atol=1e-5), key


@pytest.mark.parametrize(
    'changes, message',
    [
        (dict(distill=dict(f=feature_entry(at='backbon[-1]'))),
         "no module 'backbon'.*'backbone'"),
        (dict(distill=dict(f=feature_entry(at='backbone.conv1[0]'))),
         'would cut its batch'),
        (dict(distill=[1]), '`distill` is'),
        (dict(teacher='x.py'), '`teacher` is'),
        (dict(input_size=0), '`input_size` is 0'),
        (dict(input_size=(1, 2, 3)), '`input_size` is'),
        (dict(input_size=1.5), '`input_size` is 1.5'),
        (dict(input_size=(16, True)), '`input_size` is'),
    ],
)  # fmt: skip
def test_bad_input_is_found_at_construction(build, changes, message):
    with pytest.raises(ValueError, match=message):
        build(tiny_recipes.distiller(**changes))


@pytest.mark.parametrize(
    'changes, message',
    [
        (dict(teacher=None), '`model` has no `teacher`. Write teacher=dict'),
        (dict(teacher=[{}, {}]), 'a list of 2. Several teachers have names'),
        (dict(student=None), '`model` has no `student`. Add student='),
        (dict(student='a.py'), "`student` is 'a.py'. Write the `model`"),
        (dict(student=dict(model={})), "dict of 'model', without `type`"),
        (dict(distil={}), "unknown key 'distil'. Did you mean 'distill'"),
        (dict(teacher_={}), "unknown key 'teacher_'. Did.*'teacher'"),
        (dict(input_sise=1), "unknown key 'input_sise'. Did.*'input_size'"),
        (tiny_recipes.classifier(), "keys of the student: 'backbone', 'head'"),
        (dict(student=dict(tiny_recipes.classifier(), bakbone=1)),
         "`student`.*'bakbone'.*_delete_=True"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_named(build, changes, message):
    config = {**tiny_recipes.distiller(), **changes}
    config['type'] = 'mmdiffkd.Distiller'
    for name in [name for name, value in config.items() if value is None]:
        del config[name]
    with pytest.raises((ValueError, TypeError), match=message):
        build(config)


def test_positions_of_arguments_stay():
    names = inspect.signature(Distiller).parameters
    assert [*names][:3] == ['student', 'teacher', 'distill']
    assert {*names} - {'unknown'} == {*DistillerSpec.model_fields}


def test_attributes_of_the_student_are_set_there(distiller):
    """As hooks of a recipe do, which know nothing of a distiller."""
    student = distiller.student
    student.loss_module = torch.nn.L1Loss()
    student.factor = 1.0
    distiller.loss_module = loss = torch.nn.MSELoss()
    distiller.factor = 0.5
    assert student.loss_module is loss
    assert student.factor == 0.5
    assert 'loss_module' not in distiller._modules
    # What both have, or the student lacks, is the distiller's.
    student.metrics = student.training = None
    distiller.metrics = {'a': 1}
    distiller.eval()
    distiller.note = 'x'
    assert (student.metrics, distiller.metrics) == (None, {'a': 1})
    assert not hasattr(student, 'note')
    student.left = 1
    del distiller.left
    # A property of the student's class cannot be set there.
    distiller.with_neck = None
    assert student.with_neck is True
    assert not hasattr(student, 'left')
    copied = copy.deepcopy(distiller)
    copied.factor = 0.1
    assert (student.factor, copied.student.factor) == (0.5, 0.1)


def test_a_student_without_data_preprocessor(build):
    config = tiny_recipes.classifier()
    del config['data_preprocessor']
    student = build(config)
    del student.data_preprocessor
    model = build(tiny_recipes.distiller(student))
    assert type(model.data_preprocessor) is BaseDataPreprocessor
    images = torch.rand(2, 3, 16, 16)
    samples = [DataSample().set_gt_label(0)] * 2
    assert model(images, samples, mode='loss')['distill.feature.loss_kd'] > 0


def test_names_of_a_wrapper_are_those_that_it_has_alone(ready):
    """mmpretrain's wrapper of timm renames its weights as it saves them."""
    student = dict(
        type='TimmClassifier',
        _scope_='mmpretrain',
        model_name='resnet10t',
        pretrained=False,
        num_classes=2,
        channels=(8, 8, 8, 8),
        stem_width=8,
        loss=dict(type='CrossEntropyLoss'),
        data_preprocessor=tiny_recipes.classifier()['data_preprocessor'],
    )
    entry = feature_entry(student_at='model.layer2', teacher_at='backbone[0]')
    del entry['at']
    model = ready(tiny_recipes.distiller(student, distill=dict(f=entry)))
    state = model.state_dict()
    plain = {k: v for k, v in state.items() if not k.startswith('distill.')}
    assert list(plain) == list(model.student.state_dict())
    assert 'conv1.0.weight' in plain
    model.student.load_state_dict(plain)
    other = ready(tiny_recipes.distiller(student, distill=dict(f=entry)))
    other.load_state_dict(state)
    again = other.state_dict()
    assert all(torch.equal(again[name], state[name]) for name in state)
    averaged = ExponentialMovingAverage(model)
    averaged.update_parameters(model)
    assert list(averaged.module.state_dict()) == list(state)


@pytest.mark.parametrize('alone', [True, False])
def test_a_student_that_saves_a_part_of_its_weights(build, alone):
    """As adapters do, whatever it saves inside another module."""
    student = build(tiny_recipes.classifier())

    def leave_out(module, state, prefix, metadata):
        if not prefix or not alone:
            for key in [k for k in state if 'backbone.layer1' in k]:
                del state[key]

    student._register_state_dict_hook(leave_out)
    model = build(tiny_recipes.distiller(student))
    state = model.state_dict()
    for name, tensor in student.state_dict().items():
        assert torch.equal(state[name], tensor), name
    assert any('layer1' in name for name in state) == alone
    model.load_state_dict(state, strict=alone)


def test_tied_weights_keep_their_names(build):
    student = build(tiny_recipes.classifier())
    student.head.tied = student.head.fc
    model = build(tiny_recipes.distiller(student))
    state = model.state_dict()
    names = [name for name in state if not name.startswith('distill.')]
    assert names == list(student.state_dict())
    model.load_state_dict(state)


def test_a_student_that_is_a_plain_module(build):
    class Plain(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = torch.nn.Conv2d(3, 4, 3, 4, 1)

        def extract_feat(self, inputs):
            return self.backbone(inputs)

        def forward(self, inputs, data_samples=None, mode='tensor'):
            features = self.extract_feat(inputs)
            return dict(loss=features.mean()) if mode == 'loss' else features

    entry = feature_entry(student_at='backbone', teacher_at='backbone[-1]')
    del entry['at']
    model = build(tiny_recipes.distiller(Plain(), distill=dict(f=entry)))
    losses = model(torch.rand(2, 3, 16, 16), mode='loss')
    loss, logged = model.parse_losses(losses)
    loss.backward()
    assert logged['distill.f.loss_kd'] > 0


def test_a_data_preprocessor_that_the_student_does_not_take(build):
    class Bare(BaseModel):
        def __init__(self):
            super().__init__()

        def forward(self, inputs, data_samples=None, mode='tensor'):
            return inputs

    config = tiny_recipes.distiller(dict(type=Bare))
    config['data_preprocessor'] = dict(type='BaseDataPreprocessor')
    with pytest.raises(TypeError, match='recipe has it at its top level'):
        build(config)


def test_no_entry_is_said(build, log):
    build(tiny_recipes.distiller(distill=dict(feature=None)))
    assert 'has no entry. The student is trained without' in log.text


def test_student_with_a_module_called_distill_is_refused(build):
    student = build(tiny_recipes.classifier())
    student.distill = torch.nn.Identity()
    with pytest.raises(ValueError, match='called `distill`'):
        build(tiny_recipes.distiller(student))


def test_schedule_without_progress_is_refused(ready):
    entry = feature_entry(schedule=dict(warmup=2))
    model = ready(tiny_recipes.distiller(distill=dict(feature=entry)))
    data = batch(model)
    with pytest.raises(ValueError, match='DistillHook'):
        model(**data, mode='loss')
    model.set_progress(1, 0)
    assert model(**data, mode='loss')['distill.feature.loss_kd'] > 0


def test_callers_metadata_does_not_grow(distiller):
    state = distiller.state_dict()
    distiller.load_state_dict(state)
    count = len(state._metadata)
    distiller.load_state_dict(state)
    assert len(state._metadata) == count


def test_list_of_taps_gives_the_levels_in_order(ready):
    taps = ['backbone.layer1', 'backbone.layer3', 'backbone.layer2']
    entry = feature_entry(at=taps, neck=dict(type='ProjectionNeck'))
    model = ready(tiny_recipes.distiller(distill=dict(maps=entry)))
    shapes = [tuple(s[1:]) for s, _ in model.distill.maps.shapes]
    assert shapes == [(4, 16, 16), (16, 4, 4), (8, 8, 8)]
    assert model(**batch(model), mode='loss')['distill.maps.loss_kd'] > 0


def test_pre_activations_train_the_student_in_spite_of_inplace_relu(ready):
    tap = 'backbone.layer3.1.relu@input[-1]'
    entry = feature_entry(at=tap, neck=dict(type='ProjectionNeck'))
    # mmpretrain's block calls one in-place ReLU twice.
    student = tiny_recipes.classifier(zero_init_residual=False)
    model = ready(tiny_recipes.distiller(student, distill=dict(preact=entry)))
    data = batch(model)
    with model.student_taps.record():
        model.student(**data, mode='loss')
    (read,) = model.student_taps.read(tap)
    assert (read < 0).any()
    losses = model(**data, mode='loss')
    losses['distill.preact.loss_kd'].backward()
    assert model.student.backbone.layer3[1].conv2.weight.grad.abs().sum() > 0
    assert model.student.head.fc.weight.grad is None


@MODELS.register_module()
class SpyLoss(nn.Module):
    """Keeps what it is given by name."""

    def __init__(self, supplied=None):
        super().__init__()
        if supplied is not None:
            self.supplied = supplied

    def forward(
        self,
        preds_S,
        preds_T,
        gt_labels=None,
        teacher_head=None,
        teacher_logits=None,
    ):
        self.seen = gt_labels, teacher_head, teacher_logits
        return (preds_S - preds_T).square().mean()


def spy(ready, **changes):
    entry = dict(at='head.fc', loss=dict(type='mmdiffkd.SpyLoss')) | changes
    return ready(tiny_recipes.distiller(distill=dict(logits=entry)))


def test_loss_gets_the_teachers_head_and_logits(ready):
    model = spy(ready, teacher_head='head.fc')
    model(**batch(model), mode='loss')
    labels, head, logits = model.distill.logits.losses[0].seen
    assert labels.tolist() == [0, 1, 0, 1]
    assert head is model.teacher.network.head.fc
    (expected,) = model.teacher(batch(model)['inputs'], ['head.fc'])['head.fc']
    assert logits.shape == expected.shape == (4, 2)
    names = [name for name, _ in model.named_parameters()]
    assert not any(name.startswith('distill.') for name in names)


def test_loss_that_narrows_its_wishes_needs_no_teacher_head(ready):
    wishes = dict(type='mmdiffkd.SpyLoss', supplied=('gt_labels',))
    model = spy(ready, loss=wishes)
    model(**batch(model), mode='loss')
    labels, head, logits = model.distill.logits.losses[0].seen
    assert labels is not None and head is None and logits is None


@pytest.mark.parametrize(
    'changes, message',
    [
        (dict(), 'no `teacher_head`, which its SpyLoss asks for.*head.fc'),
        (dict(teacher_head=3), '`distill.logits.teacher_head` is 3'),
        (dict(teacher_head='head.fx'), "no module 'head.fx'.*head.fc"),
        (dict(at=[]), r'`distill.logits.at` is \[\]. Write a tap'),
    ],
)
def test_bad_teacher_head_and_taps_say_so(ready, changes, message):
    with pytest.raises(ValueError, match=message):
        spy(ready, **changes)
