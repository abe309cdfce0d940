import copy
import logging

import pytest
import timm
import tiny_detectors
import tiny_recipes
import torch
from mmdet.models.detectors import DETR
from mmengine.model import BaseDataPreprocessor, BaseModel
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import DefaultScope
from mmpretrain.models import ClsDataPreprocessor
from mmpretrain.structures import DataSample
from tiny_teachers import (
    FAST,
    PLAIN,
    TAPS,
    build_teacher,
    frozen,
    saved,
    with_statistics,
)

from mmdiffkd.models.distillers import FrozenTeacher


@pytest.fixture
def checkpoint(tmp_path):
    """Of the tiny teacher, with the statistics of a trained one."""
    return saved(tmp_path, with_statistics(frozen().network))


@pytest.fixture
def teacher():
    return build_teacher(**tiny_recipes.teacher())


class Holder(torch.nn.Module):
    def __init__(self, teacher):
        super().__init__()
        self.teacher = teacher
        self.layer = torch.nn.Linear(2, 2)


@pytest.mark.parametrize('switches', [{}, dict(FAST, dtype='bfloat16')])
def test_teacher_is_in_nothing_and_stays_in_eval_mode(checkpoint, switches):
    given = tiny_recipes.teacher(checkpoint=checkpoint, **switches)
    teacher = build_teacher(**given)
    holder = Holder(teacher)
    assert [n for n, _ in holder.named_parameters()] == [
        'layer.weight',
        'layer.bias',
    ]
    assert list(holder.state_dict()) == ['layer.weight', 'layer.bias']
    assert not list(teacher.buffers())
    assert not any(p.requires_grad for p in teacher.network.parameters())
    holder.train()
    assert not any(m.training for m in teacher.network.modules())
    assert copy.deepcopy(holder).teacher is teacher


def test_teacher_follows_dtype_and_device(teacher):
    holder = Holder(teacher).double()
    weight = teacher.network.backbone.conv1.weight
    assert weight.dtype == torch.float64
    holder.to('meta')
    assert teacher.network.backbone.conv1.weight.is_meta


def test_forward_reads_taps_without_gradient(teacher):
    images = torch.rand(3, 3, 16, 16, requires_grad=True)
    tensors = teacher(images, TAPS)
    assert tensors['backbone[-1]'][0].shape == (3, 24, 4, 4)
    assert tensors['head.fc'][0].shape == (3, 2)
    assert not tensors['head.fc'][0].requires_grad
    expected = teacher.network(images, mode='tensor')
    assert torch.equal(tensors['head.fc'][0], expected)


def test_missing_keys_are_errors():
    with pytest.raises(ValueError, match='`teacher` has no `checkpoint`'):
        FrozenTeacher(config=tiny_recipes.teacher()['config'])
    with pytest.raises(ValueError, match='`teacher` has no `config`'):
        FrozenTeacher(checkpoint=None)
    with pytest.raises(ValueError, match="'chekpoint'. Did.*'checkpoint'"):
        FrozenTeacher(**tiny_recipes.teacher(), chekpoint='x')
    with pytest.raises(ValueError, match='no whole config'):
        FrozenTeacher(config=dict(a=1), checkpoint=None)


def test_construction_reads_no_weights():
    teacher = frozen(checkpoint='absent.pth')
    with pytest.raises(FileNotFoundError, match='absent.pth'):
        teacher.init_weights()


@pytest.mark.parametrize('to_rgb', [True, False])
def test_input_is_renormalised(to_rgb):
    config = tiny_recipes.teacher()
    preprocessor = config['config']['model']['data_preprocessor']
    preprocessor.update(mean=[10, 20, 30], std=[2, 4, 5], to_rgb=to_rgb)
    teacher = build_teacher(['backbone.conv1'], **config)
    student = frozen().network
    teacher.match_input(student.data_preprocessor)
    raw = dict(inputs=list(torch.randint(0, 256, (2, 3, 16, 16)).byte()))
    own = teacher.network.data_preprocessor(copy.deepcopy(raw))['inputs']
    expected = teacher.network.backbone.conv1(own)
    seen = student.data_preprocessor(raw)['inputs']
    result = teacher(seen, ['backbone.conv1'])['backbone.conv1'][0]
    assert torch.allclose(result, expected, atol=1e-4)
    assert not torch.allclose(
        teacher.network.backbone.conv1(seen), expected, atol=1e-2
    )


def test_equal_preprocessors_leave_the_input_alone(teacher):
    student = frozen().network
    teacher.match_input(student.data_preprocessor)
    assert teacher._conversion is None


def test_preprocessor_without_normalisation_is_understood(teacher):
    teacher.match_input(BaseDataPreprocessor())
    assert teacher._conversion is not None
    assert isinstance(teacher.network, BaseModel)


# What normalises the teacher's images


def without_preprocessor(base=6, **changes):
    """The tiny classifier as one writes it down: dict(model=...)."""
    model = tiny_recipes.classifier(base, **changes)
    del model['data_preprocessor']
    return model


def with_preprocessor(preprocessor, **changes):
    return without_preprocessor(**changes) | dict(
        data_preprocessor=preprocessor
    )


STUDENT = tiny_recipes.classifier()['data_preprocessor']
MEAN = torch.tensor([10.0, 20.0, 30.0])
OTHER = dict(mean=[10.0, 20.0, 30.0], std=[2.0, 4.0, 5.0])
NUMBERS = 'mean [120, 118, 110], std [60, 58, 57], red and blue swapped'
RAW = 'no normalisation (raw values, usually 0 to 255), channels as loaded'


def preprocessor(model):
    return model.network.data_preprocessor


def raw_batch(size=16):
    images = torch.randint(0, 256, (4, 3, size, size)).byte()
    labels = [DataSample().set_gt_label(i % 2) for i in range(4)]
    return dict(inputs=list(images), data_samples=labels)


def step(ready, **teacher):
    """A distiller, and the losses of a step."""
    torch.manual_seed(0)
    distiller = ready(
        tiny_recipes.distiller(
            teacher=tiny_recipes.teacher(**teacher),
            distill=dict(
                feature=tiny_recipes.feature_entry(),
                logits=tiny_recipes.logits_entry(),
            ),
        )
    )
    torch.manual_seed(1)
    data = distiller.data_preprocessor(raw_batch(), True)
    return distiller, distiller.loss(**data)


@pytest.mark.exact
def test_a_teacher_without_preprocessor_takes_the_students(ready, checkpoint):
    given = dict(checkpoint=checkpoint)
    _, expected = step(ready, **given)
    distiller, losses = step(ready, model=without_preprocessor(), **given)
    assert losses.keys() == expected.keys()
    assert all(torch.equal(losses[k], expected[k]) for k in losses)
    assert distiller.teacher._conversion is None
    taken = preprocessor(distiller.teacher)
    assert taken is not distiller.student.data_preprocessor
    # Raw values are another thing, by far.
    raw = dict(type='ClsDataPreprocessor')
    _, wrong = step(ready, model=with_preprocessor(raw), **given)
    key = 'distill.feature.loss_autoencoder'
    assert wrong[key] > 10 * losses[key]


def test_a_teacher_that_took_a_preprocessor_is_evaluated(checkpoint):
    given = dict(checkpoint=checkpoint)
    scores = []
    for model in (tiny_recipes.classifier(6), without_preprocessor()):
        teacher = build_teacher(**tiny_recipes.teacher(model=model, **given))
        teacher.match_input(frozen().network.data_preprocessor)
        teacher.double().float()
        torch.manual_seed(1)
        samples = teacher.network.val_step(raw_batch())
        scores.append(torch.stack([s.pred_score for s in samples]))
    assert torch.equal(*scores)


def test_what_is_taken_is_said(log):
    teacher = frozen(model=without_preprocessor())
    teacher.match_input(frozen().network.train().data_preprocessor)
    assert not any(m.training for m in teacher.network.modules())
    (warning,) = [r for r in log.records if r.levelno >= logging.WARNING]
    for part in (NUMBERS, '`teacher.data_preprocessor`', "dict(type='Img"):
        assert part in warning.getMessage()
    assert f'Images: the student takes {NUMBERS}; the teacher the' in log.text


@pytest.mark.parametrize(
    'own, words',
    [
        (
            STUDENT,
            f'Images: the student takes {NUMBERS}; the teacher the same\n',
        ),
        (
            dict(type='ClsDataPreprocessor', **OTHER),
            'the teacher mean [10, 20, 30], std [2, 4, 5], channels as loaded'
            "; the teacher's input is converted",
        ),
        # As YOLOX says it.
        (
            dict(type='mmdet.DetDataPreprocessor', pad_size_divisor=32),
            f"the teacher {RAW}; the teacher's input is converted",
        ),
    ],
)
def test_both_are_always_said(own, words, log):
    teacher = frozen(model=with_preprocessor(own))
    teacher.match_input(frozen().network.data_preprocessor)
    assert words in log.text
    assert log.text.count('Images: ') == 1
    assert 'WARNING' not in log.text


def test_the_key_takes_the_place_of_the_config(log, build):
    given = dict(type='ClsDataPreprocessor', **OTHER)
    for model in (without_preprocessor(), tiny_recipes.classifier(6)):
        teacher = frozen(model=model, data_preprocessor=given)
        teacher.match_input(frozen().network.data_preprocessor)
        expected = build(with_preprocessor(given)).data_preprocessor
        found, expected = (
            each(raw, False)['inputs']
            for each, raw in (
                (preprocessor(teacher), raw_batch()),
                (expected, raw_batch()),
            )
        )
        assert found.shape == expected.shape
        assert torch.equal(preprocessor(teacher).mean.flatten(), MEAN)
    assert log.text.count('mean [10, 20, 30], std [2, 4, 5]') == 2
    assert 'WARNING' not in log.text


@pytest.mark.parametrize(
    'given, words',
    [(OTHER, 'the teacher mean [10, 20, 30]'), ({}, f'the teacher {RAW}')],
)
def test_the_top_level_of_a_config_counts(given, words, log):
    settings = tiny_recipes.teacher(model=without_preprocessor())
    # As in the recipes of mmpretrain, without a type.
    settings['config']['data_preprocessor'] = dict(given, num_classes=2)
    teacher = FrozenTeacher(**settings)
    teacher.match_input(frozen().network.data_preprocessor)
    assert words in log.text
    assert 'WARNING' not in log.text


@MMENGINE_MODELS.register_module()
class NormalizesByItself(BaseModel):
    """A model whose class, not whose config, says how."""

    def __init__(self):
        super().__init__(dict(type='ImgDataPreprocessor', **OTHER))
        self.backbone = torch.nn.Conv2d(3, 4, 1)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return self.backbone(inputs)


def test_a_class_that_normalises_by_itself_counts(log):
    teacher = frozen(model=dict(type='NormalizesByItself'))
    teacher.match_input(frozen().network.data_preprocessor)
    assert 'the teacher mean [10, 20, 30]' in log.text
    assert 'WARNING' not in log.text


@pytest.mark.parametrize('type_', [{}, dict(type='ClsDataPreprocessor')])
@pytest.mark.parametrize('at', ['model', 'top level'])
def test_the_key_is_built_in_the_scope_of_the_teacher(at, type_):
    """Whatever the scope of the run. mmpretrain's recipes give no type."""
    config = dict(model=without_preprocessor())
    if at == 'top level':
        config['default_scope'] = config['model'].pop('_scope_')
    with DefaultScope.overwrite_default_scope('mmseg'):
        teacher = FrozenTeacher(
            config=config, checkpoint=None, data_preprocessor=type_ | OTHER
        )
    assert type(preprocessor(teacher)) is ClsDataPreprocessor


@pytest.mark.parametrize(
    'value, reason',
    [
        ('ImgDataPreprocessor', ''),
        ([1.0], ''),
        (True, ''),
        (dict(type='NoSuchPreprocessor'), 'no data preprocessor can be'),
        (dict(type='ClsDataPreprocessor', mean=[1.0]), 'both `mean` and `std'),
        (dict(type='ClsDataPreprocessor', means=[1.0]), "'means'"),
        (dict(type='ReLU'), 'ReLU is none'),
    ],
)
def test_a_wrong_preprocessor_is_an_error(value, reason):
    with pytest.raises(ValueError) as error:
        frozen(data_preprocessor=value)
    for part in (
        f'`teacher.data_preprocessor` is {value!r}',
        reason,
        "Write dict(type=...), for instance dict(type='ImgDataPreprocessor'",
    ):
        assert part in str(error.value)


@MMENGINE_MODELS.register_module()
class SquareRoots(BaseDataPreprocessor):
    """What it does cannot be read from it; it keeps a state, too."""

    def __init__(self, power=0.5, batch_augments=None):
        super().__init__()
        self.register_buffer('power', torch.tensor(power))

    def forward(self, data, training=False):
        inputs = torch.stack(data['inputs']).float() ** self.power
        return dict(data, inputs=inputs)


ROOTS = dict(type='SquareRoots')


def test_what_is_not_known_is_not_guessed_in_silence(log):
    student = frozen(model=with_preprocessor(ROOTS)).network
    for role, teacher, seen in (
        ('teacher', frozen(model=with_preprocessor(ROOTS)), frozen().network),
        ('student', frozen(), student),
    ):
        log.clear()
        teacher.match_input(seen.data_preprocessor)
        assert teacher._conversion is None
        assert 'SquareRoots (not known)' in log.text
        (warning,) = [r for r in log.records if r.levelno >= logging.WARNING]
        assert f'`{role}.data_preprocessor`' in warning.getMessage()
        assert "the student's images as they are" in warning.getMessage()


def test_an_unknown_one_can_be_taken(log):
    student = frozen(model=with_preprocessor(ROOTS)).network
    teacher = frozen(model=without_preprocessor())
    teacher.match_input(student.data_preprocessor)
    found = preprocessor(teacher)(raw_batch())['inputs']
    assert 0 < found.max() <= 16
    assert 'It is not known' not in log.text
    assert "takes the student's: SquareRoots (not known)" in log.text


@pytest.mark.parametrize(
    'changes',
    [
        dict(model=without_preprocessor()),
        dict(data_preprocessor=ROOTS),
    ],
)
def test_no_checkpoint_has_a_say_in_it(changes, tmp_path):
    """It neither lacks what was taken or given, nor overwrites it."""
    student = frozen(model=with_preprocessor(dict(ROOTS, power=0.25))).network
    state = frozen().network.state_dict()
    old = {
        f'data_preprocessor.{name}': torch.tensor(7.0)
        for name in ('power', 'mean')
    }
    for extra in ({}, old):
        path = saved(tmp_path, state | extra)
        teacher = frozen(checkpoint=path, **changes)
        teacher.match_input(student.data_preprocessor)
        teacher.init_weights()
        assert preprocessor(teacher).power in (0.25, 0.5)


GREY = dict(type='ClsDataPreprocessor', mean=[127.0], std=[60.0])


@pytest.mark.parametrize(
    'student, teacher, words',
    [
        (with_preprocessor(GREY, in_channels=1), None, (3, 1)),
        (None, with_preprocessor(GREY, in_channels=1), (1, 3)),
        (None, without_preprocessor(in_channels=1), (1, 3)),
        (
            with_preprocessor(GREY, in_channels=1),
            without_preprocessor(),
            (3, 1),
        ),
    ],
)
def test_other_channels_of_images_are_an_error(student, teacher, words, build):
    config = tiny_recipes.distiller(
        student=student, teacher=tiny_recipes.teacher(model=teacher)
    )
    has, wants = words
    with pytest.raises(
        ValueError,
        match=f"`teacher`: its images have {has} channels, the student's "
        f'{wants}. .* Choose',
    ):
        build(config)


def test_the_student_may_be_normalised_at_the_top_level(build, log):
    student = without_preprocessor(4)
    config = tiny_recipes.distiller(
        student=student,
        data_preprocessor=dict(STUDENT),
        teacher=tiny_recipes.teacher(model=without_preprocessor()),
    )
    distiller = build(config)
    found = preprocessor(distiller.teacher)
    assert torch.equal(found.mean, distiller.student.data_preprocessor.mean)
    assert NUMBERS in log.text


def test_tables_worked_out_from_weights_are_fresh(teacher, tmp_path):
    """LeViT and its kin keep such tables, made when eval() is called."""
    other = frozen(checkpoint=saved(tmp_path, teacher.network.state_dict()))
    kept = []
    train = other.network.train

    def remember(mode=True):
        kept.append(other.network.head.fc.weight.clone())
        return train(mode)

    other.network.train = remember
    other.init_weights()
    assert torch.equal(kept[-1], teacher.network.head.fc.weight)
    other.double()
    assert kept[-1].dtype == torch.float64


def test_renormalisation_follows_the_dtype():
    config = tiny_recipes.teacher()
    config['config']['model']['data_preprocessor'].update(mean=[1, 2, 3])
    teacher = FrozenTeacher(**config)
    teacher.attach(['backbone[-1]'], (3, 16, 16))
    teacher.match_input(frozen().network.data_preprocessor)
    teacher.to(torch.bfloat16)
    images = torch.rand(2, 3, 16, 16, dtype=torch.bfloat16)
    (feature,) = teacher(images, ['backbone[-1]'])['backbone[-1]']
    assert feature.dtype == torch.bfloat16


def test_the_student_of_a_distiller_teaches(build):
    model = tiny_recipes.distiller()
    model['data_preprocessor'] = model['student'].pop('data_preprocessor')
    teacher = FrozenTeacher(
        config=dict(model=model, default_scope='mmpretrain'), checkpoint=None
    )
    assert type(teacher.network).__name__ == 'ImageClassifier'
    mean = model['data_preprocessor']['mean']
    assert teacher.network.data_preprocessor.mean.flatten().tolist() == mean


@pytest.fixture
def failing(monkeypatch):
    """A DETR that teaches by its encoder, and fails behind it."""

    def fails(*args, **kwargs):
        raise RuntimeError('behind the tap')

    monkeypatch.setattr(DETR, 'forward_decoder', fails)
    entry = dict(at='encoder', layout='NC', loss=dict(type='MSELoss'))
    return tiny_detectors.distiller('detr', dict(f=entry))


def test_compiling_what_is_stopped_is_refused(build, failing):
    failing['teacher']['compile'] = True
    with pytest.raises(ValueError, match='`teacher.compile` is True.*encoder'):
        build(failing)


def test_what_fails_behind_its_last_tap_is_stopped_there(ready, failing, log):
    model = ready(failing)
    assert 'runs as far as its last tap. Behind it: behind the' in log.text
    images = torch.rand(2, 3, 64, 64)
    eager = model.teacher(images, ['encoder'])['encoder']
    # In a compiled step nothing could stop.
    read = torch.compile(model.teacher, backend='eager')
    compiled = read(images, ['encoder'])['encoder']
    assert all(map(torch.equal, eager, compiled))


class Tiles(BaseModel):
    """Runs a layer once for each tile of an image."""

    def __init__(self, fails=False, data_preprocessor=None):
        super().__init__(data_preprocessor)
        self.layer = torch.nn.Conv2d(3, 4, 1)
        self.fails = fails

    def forward(self, inputs, data_samples=None, mode='tensor'):
        tiles = [self.layer(tile) for tile in inputs.split(16, dim=-1)]
        if self.fails:
            raise RuntimeError('behind the tap')
        return torch.cat(tiles, dim=-1)


def test_another_number_of_calls_is_found_in_what_runs_whole():
    teacher = FrozenTeacher(dict(model=dict(type=Tiles)), None)
    teacher.attach(['layer'], (3, 16, 32))
    assert len(teacher(torch.rand(2, 3, 16, 32), ['layer'])['layer']) == 2
    with pytest.raises(ValueError, match='3 times in this step, but 2 times'):
        teacher(torch.rand(2, 3, 16, 48), ['layer'])
    # Where it cannot be found, several calls are refused.
    teacher = FrozenTeacher(dict(model=dict(type=Tiles, fails=True)), None)
    with pytest.raises(ValueError, match='cannot run .*behind the tap'):
        teacher.attach(['layer'], (3, 16, 32))


def test_weights_that_a_library_loaded_stay(tmp_path, log):
    """As timm does for pretrained=True, here from a file."""
    settings = dict(channels=(8, 8, 8, 8), stem_width=8, num_classes=2)
    torch.manual_seed(3)
    network = timm.create_model('resnet10t', **settings)
    torch.save(network.state_dict(), tmp_path / 'timm.pth')
    config = dict(
        type='TimmClassifier',
        model_name='resnet10t',
        pretrained=True,
        pretrained_cfg_overlay=dict(
            file=str(tmp_path / 'timm.pth'), num_classes=2
        ),
        data_preprocessor=tiny_recipes.classifier()['data_preprocessor'],
        **settings,
    )
    teacher = build_teacher(
        ['model.layer4'],
        (32, 32),
        **tiny_recipes.teacher(model=config, **PLAIN),
    )
    assert not teacher.is_random
    assert 'that `pretrained=True` in its config loaded' in log.text
    loaded = teacher.network.model.state_dict()
    for name, weight in network.state_dict().items():
        assert torch.equal(loaded[name], weight), name
