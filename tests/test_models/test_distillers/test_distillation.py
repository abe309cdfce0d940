import pytest
import torch
from torch import nn

from mmdiffkd.models.distillers import Distillation, Schedule
from mmdiffkd.models.distillers.distillation import check_entry, tokens_to_map
from mmdiffkd.models.distillers.supply import stand_ins
from mmdiffkd.models.necks import Aligned
from mmdiffkd.registry import MODELS

MAP_S, MAP_T = torch.Size((2, 4, 8, 8)), torch.Size((2, 6, 8, 8))
VECTOR = torch.Size((2, 5))


def entry(students=(MAP_S,), teachers=(MAP_T,), **changes):
    settings = dict(
        neck=dict(type='ProjectionNeck'), loss=dict(type='MSELoss')
    )
    return Distillation(
        'feature',
        ['backbone[-1]'],
        ['backbone[-1]'],
        list(students),
        list(teachers),
        (32, 32),
        **{**settings, **changes},
    )


def compare(distillation, batch=3, seed=(1, 0, 0)):
    tensors = [
        [torch.rand(batch, *shapes[i][1:]) for shapes in distillation.shapes]
        for i in (0, 1)
    ]
    for tensor in tensors[0]:
        tensor.requires_grad_()
    return distillation(*tensors, (32, 32), {}, seed)


@pytest.mark.parametrize(
    'schedule, expected',
    [
        (dict(), [1, 1, 1]),
        (dict(warmup=4), [0.25, 0.5, 0.75, 1, 1]),
        (dict(stop=2), [1, 1, 0, 0]),
        (dict(warmup=2, stop=3), [0.5, 1, 1, 0]),
        (dict(stop=0), [0, 0]),
    ],
)
@pytest.mark.parametrize('by_epoch', [True, False])
def test_schedule(schedule, expected, by_epoch):
    made = Schedule(**schedule, by_epoch=by_epoch)
    for i, factor in enumerate(expected):
        args = (i, 1000) if by_epoch else (1000, i)
        assert made.factor(*args) == factor


def test_necks_are_initialised_as_configured():
    distillation = entry(
        neck=dict(
            type='ProjectionNeck',
            init_cfg=dict(type='Constant', layer='Conv2d', val=0.5),
        )
    )
    distillation.init_weights()
    (weight, *_) = distillation.necks.parameters()
    assert torch.equal(weight, torch.full_like(weight, 0.5))


def test_weight_scales_every_loss():
    losses, metrics = {}, {}
    for weight in (1.0, 2.5):
        made = entry(neck=dict(type='DiffKDNeck'), weight=weight)
        torch.manual_seed(0)
        for parameter in made.parameters():
            nn.init.normal_(parameter, std=0.1)
        losses[weight], metrics[weight] = compare(made)
    assert set(losses[1.0]) == {'loss_kd', 'loss_diffusion'}
    assert set(metrics[1.0]) == {'gamma', 'gamma_std'}
    for key, value in losses[1.0].items():
        assert losses[2.5][key].item() == pytest.approx(2.5 * value.item())


def test_levels_have_their_own_necks_unless_shared():
    shapes = dict(students=[MAP_S, MAP_S], teachers=[MAP_T, MAP_T])
    assert len(entry(**shapes).necks) == 2
    assert len(entry(**shapes, shared=True).necks) == 1
    one, _ = compare(entry())
    two, _ = compare(entry(**shapes))
    assert one.keys() == two.keys()


def test_losses_add_up_over_levels_and_metrics_average():
    made = entry(
        students=[MAP_S] * 2,
        teachers=[MAP_T] * 2,
        neck=dict(type='DiffKDNeck', noise_matching=True),
        shared=True,
    )
    made.necks[0].noise_matching.eval()
    _, metrics = compare(made)
    assert 0 < metrics['gamma'] < 1


def test_smaller_map_is_resized_and_trains_the_student():
    made = entry(students=[torch.Size((2, 4, 4, 4))])
    losses, _ = compare(made)
    losses['loss_kd'].backward()
    assert "student's map resized" in made.describe()[0]


@pytest.mark.parametrize('extra', [0, 1, 2])
def test_tokens_become_maps(extra):
    tokens = torch.arange(2.0 * (extra + 6) * 5).view(2, extra + 6, 5)
    result = tokens_to_map(tokens, (32, 48))
    assert result.shape == (2, 5, 2, 3)
    assert torch.equal(result[0, :, 0, 1], tokens[0, extra + 1])
    assert torch.equal(result[1, :, 1, 2], tokens[1, extra + 5])


def test_tokens_are_compared_with_maps():
    made = entry(students=[torch.Size((2, 17, 4))])
    assert made.shapes[0][0] == (2, 4, 4, 4)
    with pytest.raises(ValueError, match='19 tokens make no map'):
        entry(students=[torch.Size((2, 19, 4))])


def test_same_seed_same_noise_other_seed_other_noise():
    made = entry(neck=dict(type='DiffKDNeck')).eval()
    torch.manual_seed(0)
    students = [torch.rand(2, 4, 8, 8)]
    teachers = [torch.rand(2, 6, 8, 8)]
    state = torch.get_rng_state()

    def value(seed):
        losses, _ = made(students, teachers, (32, 32), {}, seed)
        return losses['loss_diffusion'].item()

    assert value((1, 0, 0)) == value((1, 0, 0))
    assert (
        len({value(s) for s in [(1, 0, 0), (2, 0, 0), (1, 1, 0), (1, 0, 1)]})
        == 4
    )
    assert torch.equal(torch.get_rng_state(), state)


def test_idle_entry_is_zero_and_touches_every_parameter():
    made = entry(neck=dict(type='DiffKDNeck', latent_channels=3))
    with torch.no_grad():
        next(made.parameters()).fill_(float('nan'))
    (loss,) = made.idle().values()
    loss.backward()
    assert loss.item() == 0
    assert all(
        p.grad is not None and not p.grad.any() for p in made.parameters()
    )


def test_loss_and_neck_get_what_they_ask_for():
    @MODELS.register_module(force=True)
    class AskingLoss(nn.Module):
        def forward(self, preds_S, preds_T, gt_labels):
            return preds_S.sum() * 0 + gt_labels

    made = entry([VECTOR], [VECTOR], neck=None, loss=dict(type='AskingLoss'))
    students = [torch.rand(2, 5)]
    losses, _ = made(
        students, students, (32, 32), {'gt_labels': lambda: 7}, (1,)
    )
    assert losses['loss_kd'] == 7


@pytest.mark.parametrize(
    'changes, message',
    [
        (dict(weight=-1), r'`distill.feature.weight` is -1'),
        (dict(weight='1'), r"`distill.feature.weight` is '1'"),
        (dict(schedule=dict(warm=2)), "unknown key 'warm'.*'warmup'"),
        (dict(schedule=dict(stop=-2)), '`schedule.stop` is -2'),
        (dict(schedule=5), '`distill.feature.schedule` is 5'),
        (dict(weight=float('nan')), '`distill.feature.weight` is nan'),
        (dict(loss=dict(type='mmpretrain.Absent')), 'not registered'),
        (dict(loss=dict(type='MSLoss')), "'MSLoss'.*'MSELoss'"),
        (dict(neck=dict(type='DiffKDNek')), "'DiffKDNek'.*'DiffKDNeck'"),
        (dict(neck=dict(type='DiffKDNeck', latent=4)), "'latent'.*'latent_ch"),
        (dict(neck=dict(type='DiffKDNeck', latent_channels=0)),
         'distill.feature.neck.*latent_channels'),
        (dict(neck=dict(type='DiffKDNeck', teacher_channels=4)),
         '`distill.feature.neck.teacher_channels` is 4, but 6 .*Leave it'),
        (dict(loss=dict(type='VIDLoss', teacher_channels=4)),
         '`distill.feature.loss.teacher_channels` is 4, but 6 .*Leave it'),
        (dict(neck=dict(type='DiffKDNeck', num_inference_steps=0)),
         'num_inference_steps|num_steps'),
        (dict(neck=dict(type='DiffKDNeck', num_inference_steps=600)),
         '600'),
        (dict(neck=dict(type='DiffKDNeck', feature='vector')), 'feature'),
        (dict(neck='DiffKDNeck'), r'Write dict\(type='),
        (dict(loss=dict(loss_weight=1)), r'Write dict\(type='),
        (dict(neck=None), 'has no neck.*4 channels.*6'),
        (dict(students=[MAP_S] * 2), '2 tensors.*1 in the teacher'),
        (dict(students=[torch.Size((2, 4))]), 'a vector.*a map'),
        (dict(students=[torch.Size((2, 4, 65, 8))]),
         'height.*more than a factor of 8'),
        (dict(students=[VECTOR], teachers=[torch.Size((2, 7))],
              loss=dict(type='KLDivergence')), '5 and .* has 7'),
    ],
)  # fmt: skip
def test_bad_entry_names_key_value_and_cure(changes, message):
    with pytest.raises(ValueError, match=message):
        entry(**changes)


@pytest.mark.parametrize(
    'name, message',
    [
        ('my_loss', 'adds up every'),
        ('lossy', 'adds up every'),
        ('Feature', 'lower-case'),
        ('1st', 'lower-case'),
        ('a.b', 'lower-case'),
        ('step', 'reserved'),
        ('values', 'reserved'),
        ('train', 'reserved'),
    ],
)
def test_bad_name(name, message):
    with pytest.raises(ValueError, match=message):
        check_entry(name, dict(at='x', loss=dict(type='MSELoss')))


@pytest.mark.parametrize(
    'config, message',
    [
        (dict(att='x', loss={}), "unknown key 'att'.*'at'"),
        (dict(at='x', student_at='y', loss={}), '`at` and also'),
        (
            dict(at='x', loss={'type': 'a'}, teacher_head='head[0]'),
            r"teacher_head` is 'head\[0\]'.*without an index",
        ),
        (dict(student_at='y', loss={'type': 'a'}), 'teacher.*`teacher_at`'),
        (dict(at='y'), 'has no `loss`'),
        ('backbone', 'Write dict'),
    ],
)
def test_bad_keys(config, message):
    with pytest.raises(ValueError, match=message):
        check_entry('feature', config)


def test_batch_of_one_is_found_without_a_step():
    vectors = entry(
        [VECTOR], [VECTOR], neck=dict(type='DiffKDNeck', feature='vector')
    )
    with pytest.raises(ValueError, match='distill.feature.neck'):
        vectors.check_batch(1, {})
    entry(neck=dict(type='DiffKDNeck')).check_batch(1, {})


def test_neck_that_asks_for_more_is_not_judged_early():
    @MODELS.register_module(force=True)
    class AskingNeck(nn.Module):
        def forward(self, student, teacher, gt_labels):
            return Aligned(student + gt_labels, teacher, {}, {})

    made = entry([VECTOR], [VECTOR], neck=dict(type='AskingNeck'))
    tensors = [torch.rand(2, 5)]
    losses, _ = made(
        tensors, tensors, (32, 32), {'gt_labels': lambda: 1.0}, (1,)
    )
    assert losses['loss_kd'].item() == pytest.approx(1.0)


class JointNeck(nn.Module):
    """Adds a level: the last one, pooled."""

    joint = True

    def __init__(self, student_channels=None, teacher_channels=None):
        super().__init__()
        self.channels = student_channels, teacher_channels
        self.projections = nn.ModuleList(
            nn.Conv2d(s, t, 1)
            for s, t in zip(student_channels, teacher_channels)
        )

    def forward(self, students, teachers):
        self.sizes = [tuple(s.shape[2:]) for s in students]
        students = [p(s) for p, s in zip(self.projections, students)]
        students.append(students[-1].mean((2, 3)))
        teachers = [*teachers, teachers[-1].mean((2, 3))]
        students[0] = nn.functional.interpolate(
            students[0], teachers[0].shape[2:]
        )
        metrics = dict(mean=students[-1].mean())
        return Aligned(students, teachers, dict(loss_own=metrics['mean']),
                       metrics)  # fmt: skip


class ChannelsLoss(nn.Module):
    """Remembers what it was built for and what was drawn for it."""

    def __init__(self, student_channels=None, teacher_channels=None):
        super().__init__()
        self.channels = student_channels, teacher_channels

    def draw(self, student, teacher, generator):
        return dict(noise=torch.rand(3, generator=generator))

    def forward(self, preds_S, preds_T, noise):
        self.noise = noise
        return (preds_S - preds_T).square().mean()


def test_joint_neck_sees_all_levels_and_may_add_one():
    small = torch.Size((2, 4, 4, 4))
    made = entry(
        students=[small, MAP_S],
        teachers=[MAP_T, MAP_T],
        neck=dict(type=JointNeck),
    )
    assert made.necks[0].channels == ([4, 4], [6, 6])
    assert len(made.necks) == 1 and len(made.losses) == 3
    losses, metrics = compare(made)
    assert made.necks[0].sizes == [(4, 4), (8, 8)]
    assert set(losses) == {'loss_kd', 'loss_own'}
    torch.testing.assert_close(losses['loss_own'], metrics['mean'])


def test_loss_is_built_for_what_the_neck_hands_on():
    made = entry(
        neck=dict(type='DiffKDNeck', latent_channels=3),
        loss=dict(type=ChannelsLoss),
    )
    assert made.losses[0].channels == (3, 3)


@pytest.mark.parametrize(
    'loss, shape, message',
    [
        ('ATLoss', VECTOR, r'loss.*ATLoss compares maps.*\(2, 5\).*Tap a'),
        ('DKDLoss', MAP_S, 'DKDLoss compares vectors.*Tap what is pooled'),
    ],
)
def test_loss_refuses_what_it_cannot_compare(loss, shape, message):
    with pytest.raises(ValueError, match=message):
        entry([shape], [shape], neck=None, loss=dict(type=loss))


def test_neck_is_tried_with_stand_ins():
    settings = dict(
        neck=dict(type='DiffKDClassifierNeck'),
        loss=dict(type=ChannelsLoss),
        teacher_head='head.fc',
    )
    fitting = stand_ins(2, (32, 32), nn.Linear(6, 5), torch.Size((2, 5)))
    made = entry(**settings, stand_ins=fitting)
    assert made.losses[0].channels == (5, 5)
    assert not any(isinstance(m, nn.Linear) for m in made.losses.modules())
    over_classes = dict(settings, loss=dict(type='KLDivergence'))
    entry(**over_classes, stand_ins=fitting)


def test_loss_draws_from_its_own_stream():
    made = entry(loss=dict(type=ChannelsLoss))
    drawn = []
    for step in (0, 0, 1):
        compare(made, seed=(1, 0, step))
        drawn.append(made.losses[0].noise)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


class ResizingNeck(nn.Module):
    resizes = True

    def __init__(self, student_size=None, teacher_size=None):
        super().__init__()
        self.sizes = student_size, teacher_size

    def forward(self, student, teacher):
        assert student.shape[2:] == self.sizes[0]
        student = nn.functional.adaptive_avg_pool2d(student, self.sizes[1])
        return Aligned(student, teacher, {}, {})


def test_neck_that_resizes_gets_sizes_and_the_student_as_it_is():
    made = entry(
        students=[torch.Size((2, 6, 16, 16))],
        teachers=[MAP_T],
        neck=dict(type=ResizingNeck),
    )
    assert made.necks[0].sizes == ((16, 16), (8, 8))
    compare(made)
    assert 'resized' not in made.describe()[0]


def test_loss_over_samples_needs_no_neck_for_other_channels():
    class Gram(nn.Module):
        any_channels = True

        def forward(self, preds_S, preds_T):
            return (preds_S.mean() - preds_T.mean()).square()

    losses, _ = compare(entry(neck=None, loss=dict(type=Gram)))
    assert losses['loss_kd'].requires_grad
