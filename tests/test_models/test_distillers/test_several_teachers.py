"""Distillers with several teachers."""

import copy
import weakref

import pytest
import tiny_detectors
import tiny_recipes
import torch
from distill_steps import PROJECTED, compared, images, pair
from mmengine.config import Config

from mmdiffkd.analysis.macs import count_macs, get_costs
from mmdiffkd.models.distillers.preparation import prepare_losses
from mmdiffkd.utils import load_config, plain_config, plain_recipe

FEATURE = tiny_recipes.feature_entry(teacher='small')
LOGITS = dict(
    at='head.fc', teacher='large', loss=dict(type='KLDivergence', tau=2.0)
)


def two(distill=None, **changes):
    """A distiller with a small and a large teacher, an entry for each."""
    config = tiny_recipes.distiller(
        distill=distill or dict(feature=FEATURE, logits=LOGITS),
        teachers=dict(
            small=tiny_recipes.teacher(6), large=tiny_recipes.teacher(10)
        ),
        **changes,
    )
    del config['teacher']
    return config


@pytest.fixture
def model(ready):
    return ready(two())


def count_runs(model):
    """How often each teacher's backbone has run, by name."""
    runs = dict.fromkeys(model.teachers, 0)
    for name, teacher in model.teachers.items():

        def count(*_, name=name):
            runs[name] += 1

        teacher.network.backbone.register_forward_hook(count)
    return runs


def test_an_entry_reads_its_teacher(model):
    assert compared(model, images()) == dict(
        feature=pair(2, 8, 4, 4), logits=pair(2, 2)
    )
    head = model.teachers.large.network.head.fc
    expected, data = [], images()
    head.register_forward_hook(lambda m, args, out: expected.append(out))
    (loss,) = model.distill.logits.losses
    loss.register_forward_pre_hook(lambda m, args: expected.append(args[1]))
    model(**data, mode='loss')
    assert torch.equal(*expected)


def test_losses_are_those_of_each_teacher_alone(ready):
    """Bit for bit: teachers do not disturb each other."""
    both, data = ready(two()), images()
    state = copy.deepcopy(both.state_dict())
    losses = both(**data, mode='loss')
    alone = {}
    for name, entry, width in (
        ('feature', FEATURE, 6),
        ('logits', LOGITS, 10),
    ):
        entry = dict(entry)
        teacher = both.teachers[entry.pop('teacher')]
        one = ready(
            tiny_recipes.distiller(
                teacher=tiny_recipes.teacher(width),
                distill={name: entry},
            )
        )
        one.load_state_dict({k: state[k] for k in one.state_dict()})
        one.teacher.network.load_state_dict(teacher.network.state_dict())
        one.noise_stream = both.noise_stream
        alone |= one(**data, mode='loss')
    assert 'distill.feature.loss_diffusion' in losses
    assert losses.keys() == alone.keys()
    assert all(torch.equal(losses[name], alone[name]) for name in losses)


def test_each_runs_once_a_step_if_it_is_read(ready):
    entries = dict(
        feature=FEATURE,
        logits=LOGITS,
        again=dict(at='neck', teacher='large', **PROJECTED),
    )
    model = ready(two(entries))
    runs = count_runs(model)
    model(**images(), mode='loss')
    assert runs == dict(small=1, large=1)
    model.distill.feature.weight = 0.0
    losses = model(**images(), mode='loss')
    assert runs == dict(small=1, large=2)
    assert losses['distill.feature.loss_kd'] == 0
    model.distill.logits.weight = model.distill.again.weight = 0.0
    model(**images(), mode='loss')
    assert runs == dict(small=1, large=2)


def test_a_step_costs_the_sum_of_the_forward_passes(ready):
    def macs(**entries):
        torch.manual_seed(0)
        model = ready(two({'off': dict(LOGITS, weight=0.0), **entries}))
        return count_macs(lambda: model(**images(), mode='loss'))

    plain, first, second, both = (
        macs(**entries)
        for entries in (
            {},
            dict(feature=FEATURE),
            dict(logits=LOGITS),
            dict(feature=FEATURE, logits=LOGITS),
        )
    )
    assert plain < min(first, second)
    assert both - plain == (first - plain) + (second - plain)


def test_activations_of_one_are_freed_before_the_next_runs(model):
    alive = []
    small, large = (t.network.backbone for t in model.teachers.values())
    small.layer1.register_forward_hook(
        lambda m, args, out: alive.append(weakref.ref(out))
    )
    seen = []
    large.register_forward_pre_hook(
        lambda *_: seen.extend(ref() is not None for ref in alive)
    )
    model(**images(), mode='loss')
    assert seen == [False]


def test_they_are_in_nothing_that_is_trained_or_saved(model):
    plain = set(model.student.state_dict())
    state = set(model.state_dict())
    assert {k for k in state if not k.startswith('distill.')} == plain
    trained = {id(p) for p in model.parameters()}
    for teacher in model.teachers.values():
        for parameter in teacher.network.parameters():
            assert id(parameter) not in trained
            assert not parameter.requires_grad
    copied = copy.deepcopy(model)
    assert copied.teachers.small is model.teachers.small


def test_with_weight_0_the_students_training_is_the_plain_one(ready, build):
    def gradients(config, seed=1):
        torch.manual_seed(seed)
        network = ready(config)
        torch.manual_seed(seed)
        losses = network(**images(), mode='loss')
        network.parse_losses(losses)[0].backward()
        student = getattr(network, 'student', network)
        return [p.grad for p in student.parameters()]

    off = {
        name: dict(entry, weight=0.0)
        for name, entry in dict(feature=FEATURE, logits=LOGITS).items()
    }
    model = tiny_recipes.classifier()
    assert all(map(torch.equal, gradients(model), gradients(two(off))))


def test_one_teacher_with_a_name(ready):
    config = two(dict(feature=dict(FEATURE, teacher=None)))
    config['teachers']['large'] = None
    model = ready(config)
    assert model.teacher is model.teachers.small
    assert model.distill.feature.teachers == ('small',)
    assert model.teacher.key == 'teachers.small'


def test_several_have_no_short_name(model):
    assert not hasattr(model, 'teacher')
    with pytest.raises(AttributeError, match='They are in `teachers`'):
        _ = model.teacher


# The mean of several

MEAN = dict(at='backbone[-1]', teacher=['small', 'other'], **PROJECTED)


def with_other(distill, other=None):
    config = two(distill)
    config['teachers']['other'] = other or tiny_recipes.teacher(6)
    return config


def test_the_mean_of_several_teachers_is_compared(ready):
    model = ready(with_other(dict(mean=MEAN)))
    maps = []
    for name in ('small', 'other'):
        backbone = model.teachers[name].network.backbone
        backbone.register_forward_hook(lambda *_: maps.append(_[2][-1]))
    (loss,) = model.distill.mean.losses
    loss.register_forward_pre_hook(lambda m, args: maps.append(args[1]))
    runs = count_runs(model)
    model(**images(), mode='loss')
    first, second, mean = maps
    assert runs == dict(small=1, large=0, other=1)
    assert not torch.equal(first, second)
    torch.testing.assert_close(mean, (first + second) / 2)


def test_a_loss_that_asks_for_a_pass_sees_the_mean(ready):
    loss = dict(type='LSHLoss', hash_bits=4, hash_std=1.0)
    entry = dict(at='neck[-1]', teacher=['small', 'other'], loss=loss)
    entry['neck'] = dict(type='ProjectionNeck')
    model = ready(with_other(dict(mean=entry)))
    seen = []
    (part,) = model.distill.mean.losses
    part.prepare = lambda teachers: seen.extend(teachers)
    inputs = images()['inputs']
    prepare_losses(model.distill.mean, lambda: [inputs], model.teachers)
    expected = [
        model.teachers[name](inputs, ['neck[-1]'])['neck[-1]'][0]
        for name in ('small', 'other')
    ]
    torch.testing.assert_close(seen[0], sum(expected) / 2)


@pytest.mark.parametrize(
    'entry, message',
    [
        (dict(teacher=['small', 'large']),
         r'mean.*\(24, 4, 4\).*\(40, 4, 4\)'),
        (dict(teacher=['small', 'small']), 'names one twice'),
        (dict(teacher=['small', 'other'], teacher_head='head.fc'),
         '`teacher_head`, a module of one teacher'),
    ],
)  # fmt: skip
def test_a_mean_that_makes_no_sense(build, entry, message):
    with pytest.raises(ValueError, match=message):
        build(with_other(dict(mean=dict(MEAN, **entry))))


def test_a_mean_over_other_heads_is_refused(build):
    """Softmax logits of one, and something else of the other."""
    other = tiny_recipes.classifier(6)
    other['head'].update(
        type='MultiLabelLinearClsHead',
        loss=dict(type='CrossEntropyLoss', use_sigmoid=True),
    )
    entry = dict(LOGITS, teacher=['small', 'other'])
    with pytest.raises(ValueError, match='`distill.mean`'):
        build(with_other(dict(mean=entry), tiny_recipes.teacher(model=other)))


# Which teacher


@pytest.mark.parametrize(
    'changes, message',
    [
        (dict(distill=dict(f=tiny_recipes.feature_entry())),
         "`distill.f` does not say which.*'small', 'large'.*teacher='small'"),
        (dict(distill=dict(f=dict(FEATURE, teacher='smal'))),
         "`distill.f.teacher` is 'smal'.*mean 'small'"),
        (dict(distill=dict(f=dict(FEATURE, teacher=3))),
         '`distill.f.teacher` is 3. Write the name'),
        (dict(teacher=tiny_recipes.teacher()),
         '`model` has `teacher` and also `teachers`'),
        (dict(teachers={}), '`teachers` is {}. Write teachers=dict'),
        (dict(teachers=dict(a=None)), '`teachers` is {.a.: None}. Write'),
        (dict(teachers=[1]), '`teachers` is a list of 1. Write'),
        (dict(teachers=dict(keys={})), "named 'keys', which is reserved"),
        (dict(teachers={'A-b': {}}), '`teachers` has a teacher named'),
        (dict(teachers=dict(a=3)), '`teachers.a` is 3. Write dict'),
        (dict(teachers=dict(small=dict(config=1)),
              distill=dict(feature=FEATURE)),
         '`teachers.small` has no `checkpoint`'),
    ],
)  # fmt: skip
def test_what_is_not_certain_is_refused(build, changes, message):
    with pytest.raises(ValueError, match=message):
        build({**two(), **changes})


def test_a_name_for_the_only_teacher_has_to_be_right(build):
    config = tiny_recipes.distiller(distill=dict(f=FEATURE))
    with pytest.raises(ValueError, match='`distill.f.teacher` is .small.'):
        build(config)


def test_a_teacher_that_no_entry_reads(build, log):
    build(two(dict(feature=FEATURE)))
    assert "No entry reads the teacher 'large'." in log.text
    assert "'small'. It" not in log.text


def test_errors_say_which_teacher(ready):
    wrong = dict(LOGITS, teacher_at='head.fcs', student_at='head.fc')
    del wrong['at']
    with pytest.raises(ValueError, match='`teachers.large`: the teacher.*fcs'):
        ready(two(dict(f=wrong)))
    config = two()
    config['teachers']['small']['config'] = dict(
        model=tiny_recipes.classifier(in_channels=1)
    )
    with pytest.raises(ValueError, match='`teachers.small`: its images'):
        ready(config)
    config = two()
    config['teachers']['small']['inherit'] = ('necks',)
    with pytest.raises(ValueError, match='`teachers.small.inherit` names'):
        ready(config)


def test_the_student_inherits_of_the_teacher_that_says_so(ready):
    config = two()
    config['teachers']['other'] = tiny_recipes.teacher(4, inherit=('head.fc',))
    model = ready(config)
    other = model.teachers.other.network.head.fc
    assert torch.equal(model.student.head.fc.weight, other.weight)


def test_two_teachers_cannot_fill_one_part(build):
    config = two()
    for name, path in (('small', 'head'), ('large', 'head.fc')):
        config['teachers'][name] = tiny_recipes.teacher(4, inherit=(path,))
    message = '`teachers.small.inherit` names .head. and `teachers.large.inh'
    with pytest.raises(ValueError, match=message):
        build(config)


def test_box_heads_run_on_the_boxes_of_the_student(ready):
    """Those of two detectors, beside a classifier."""
    boxes = dict(at='roi_head.bbox_head.fc_reg', **PROJECTED)
    boxes['neck'] = None
    detector = tiny_detectors.distiller('faster', dict(f=boxes))
    classifier = tiny_recipes.teacher()
    feature = dict(
        student_at='backbone[-1]', teacher_at='backbone[-1]', teacher='cls'
    )
    config = {
        **detector,
        'teachers': dict(
            a=detector['teacher'],
            b=copy.deepcopy(detector['teacher']),
            cls=classifier,
        ),
        'distill': dict(
            first=dict(boxes, teacher='a'),
            second=dict(boxes, teacher='b'),
            both=dict(boxes, teacher=['a', 'b']),
            feature={**PROJECTED, **feature},
        ),
    }
    del config['teacher']
    model = ready(config)
    seen = []
    for name in ('a', 'b'):
        extractor = model.teachers[name].network.roi_head.bbox_roi_extractor
        extractor.register_forward_hook(lambda m, args, out: seen.append(args))
    losses = tiny_detectors.step(model, tiny_detectors.batch(model))
    assert torch.equal(seen[-1][1], seen[-2][1]) and len(seen[-1][1]) > 2
    assert all(losses[f'distill.{n}.loss_kd'] > 0 for n in config['distill'])


# A run


def test_each_is_evaluated(tmp_path, build):
    files = {}
    for name, width in (('small', 6), ('large', 10)):
        network = build(tiny_recipes.classifier(width))
        files[name] = tmp_path / f'{name}.pth'
        torch.save(network.state_dict(), files[name])
    config = two()
    for name, file in files.items():
        config['teachers'][name]['checkpoint'] = str(file)
    recipe = tiny_recipes.distill_recipe(tmp_path, config, epochs=1)
    runner = tiny_recipes.train(recipe)
    (logged,) = (tmp_path / 'work').glob('*/vis_data/scalars.json')
    text = logged.read_text()
    for name in files:
        assert f'teachers.{name}/accuracy/top1' in text
    assert runner.model.distill.step == 2
    plain = load_config(tmp_path / 'work' / 'student.py')
    assert plain.model.type == 'ImageClassifier'


def test_costs_are_those_of_all_of_them():
    config = Config(dict(model=two(), default_scope='mmpretrain'))
    costs = get_costs(config)
    assert list(costs['teachers']) == ['small', 'large']
    for key in ('parameters', 'macs'):
        assert costs['teacher'][key] == sum(
            each[key] for each in costs['teachers'].values()
        )
    alone = two(dict(logits=LOGITS))
    config = Config(dict(model=alone, default_scope='mmpretrain'))
    read = get_costs(config)['teachers']
    assert read['small']['macs'] == 0
    assert read['large'] == costs['teachers']['large']


def test_the_plain_recipe():
    config = Config(dict(model=two(), teachers={}))
    assert plain_config(config).model.type == 'ImageClassifier'
    assert 'teachers' not in plain_recipe(config)


def test_files_beside_the_config(tmp_path):
    (tmp_path / 'large.pth').touch()
    file = tmp_path / 'config.py'
    file.write_text(
        'model = dict(teachers=dict('
        "small=dict(config='a.py', checkpoint=None), "
        "large=dict(config=dict(model={}), checkpoint='large.pth')))"
    )
    teachers = load_config(file).model.teachers
    assert teachers.large.checkpoint == str(tmp_path / 'large.pth')
    assert teachers.small.config == 'a.py'
