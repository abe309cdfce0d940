import pytest
import torch
from tiny_entries import MAP_S, MAP_T, VECTOR, compare, entry, tapped
from torch import nn

from mmdiffkd.models.distillers.context import meta_supply
from mmdiffkd.models.distillers.probe import shapes_behind_necks
from mmdiffkd.models.necks import Aligned
from mmdiffkd.registry import MODELS


def test_levels_have_their_own_necks_unless_shared():
    shapes = dict(students=[MAP_S, MAP_S], teachers=[MAP_T, MAP_T])
    assert len(entry(**shapes).necks) == 2
    assert len(entry(**shapes, shared=True).necks) == 1
    one, _ = compare(entry())
    two, _ = compare(entry(**shapes))
    assert one.keys() == two.keys()


def test_tokens_are_compared_with_maps():
    tokens = tapped((2, 17, 4), (2, 65, 4))
    made = entry(students=[tokens])
    assert made.shapes[0][0] == (2, 4, 4, 4)
    assert '1 prefix tokens dropped' in made.describe()[0]
    with pytest.raises(ValueError, match='19 tokens, 0 .* make no map'):
        entry(students=[tapped((2, 19, 4))], prefix_tokens=0)


@pytest.mark.parametrize(
    'changes, message',
    [
        (dict(weight=-1), r'`distill.feature.weight` is -1'),
        (dict(weight='1'), r"`distill.feature.weight` is '1'"),
        (dict(schedule=dict(warm=2)), "unknown key 'warm'.*'warmup'"),
        (dict(schedule=dict(stop=-2)),
         '`distill.feature.schedule.stop` is -2'),
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
        (dict(students=[MAP_S] * 2), '2 tensors, the teach.* gives 1'),
        (dict(students=[torch.Size((2, 4))]), 'a vector.*a map'),
        (dict(students=[torch.Size((2, 4, 65, 8))]),
         'height.*more than a factor of 8.*nearer strides'),
        (dict(students=[VECTOR], teachers=[torch.Size((2, 7))],
              loss=dict(type='KLDivergence')),
         'distributions over classes.* 5 and .* has 7.*the same classes'),
        (dict(students=[torch.Size((2, 8, 4, 4))], neck=None,
              teachers=[torch.Size((2, 12, 4, 4))],
              loss=dict(type='LDLoss', region='all')),
         'distributions over bins.* 8 and .* has 12.*the same bins'),
    ],
)  # fmt: skip
def test_bad_entry_names_key_value_and_cure(changes, message):
    with pytest.raises(ValueError, match=message):
        entry(**changes)


def test_batch_of_one_is_found_without_a_step():
    vectors = entry(
        [VECTOR], [VECTOR], neck=dict(type='DiffKDNeck', feature='vector')
    )
    maps = entry(neck=dict(type='DiffKDNeck'))

    def run_alone(made):
        return shapes_behind_necks(
            'feature', made.spec, made.necks, made.shapes, 1, {}
        )

    with pytest.raises(ValueError, match='distill.feature.neck'):
        run_alone(vectors)
    assert run_alone(maps) == ([((1, 6, 8, 8), (1, 6, 8, 8))], True)


def test_neck_that_asks_for_more_is_not_judged_early():
    @MODELS.register_module(force=True)
    class AskingNeck(nn.Module):
        def forward(self, student, teacher, gt_labels):
            return Aligned(student + gt_labels, teacher, {}, {})

    made = entry([VECTOR], [VECTOR], neck=dict(type='AskingNeck'))
    losses, _ = compare(made, same=True, gt_labels=1.0)
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
    """Remembers what it was built for."""

    def __init__(self, student_channels=None, teacher_channels=None):
        super().__init__()
        self.channels = student_channels, teacher_channels

    def forward(self, preds_S, preds_T):
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
        ('ATLoss', VECTOR, r'loss`: ATLoss compares maps.*\(2, 5\).*tap a'),
        ('DKDLoss', MAP_S, 'DKDLoss compares vectors.*tap what is pooled'),
    ],
)
def test_loss_refuses_what_it_cannot_compare(loss, shape, message):
    with pytest.raises(ValueError, match=message):
        entry([shape], [shape], neck=None, loss=dict(type=loss))


def test_neck_is_tried_with_examples():
    settings = dict(
        neck=dict(type='DiffKDClassifierNeck'),
        loss=dict(type=ChannelsLoss),
        teacher_head='head.fc',
    )
    fitting = meta_supply(2, (32, 32), nn.Linear(6, 5), torch.Size((2, 5)))
    made = entry(**settings, meta_supply=fitting)
    assert made.losses[0].channels == (5, 5)
    assert not any(isinstance(m, nn.Linear) for m in made.losses.modules())
    over_classes = dict(settings, loss=dict(type='KLDivergence'))
    entry(**over_classes, meta_supply=fitting)


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


@pytest.mark.parametrize(
    'kind', ['DiffKDNeck', 'ProjectionNeck', 'ProjectorEnsembleNeck']
)
def test_feature_is_read_off_the_shape(kind):
    for shapes, feature in (
        ((VECTOR, VECTOR), 'vector'),
        ((MAP_S, MAP_T), 'map'),
    ):
        made = entry([shapes[0]], [shapes[1]], neck=dict(type=kind))
        assert made.necks[0].feature == feature
        compare(made)
        other = {'map': 'vector', 'vector': 'map'}[feature]
        with pytest.raises(ValueError, match=f"neck.feature` is '{other}'"):
            entry(
                [shapes[0]], [shapes[1]], neck=dict(type=kind, feature=other)
            )


class FocusedLoss(nn.Module):
    def __init__(self, feature='edges'):
        super().__init__()
        self.focus = feature

    def forward(self, preds_S, preds_T):
        return (preds_S - preds_T).mean()


def test_feature_of_another_meaning_is_left_alone():
    for given in ('edges', 'corners'):
        loss = dict(type=FocusedLoss, feature=given)
        assert entry(loss=loss).losses[0].focus == given
    assert entry(loss=dict(type=FocusedLoss)).losses[0].focus == 'edges'


class PlainNeck(nn.Module):
    """Somebody else's, which knows nothing of ours."""

    def __init__(self, student_channels):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, student, teacher, gt_labels):
        return Aligned(student * self.scale, teacher, {}, {})


class PlainLoss(nn.Module):
    def forward(self, preds_S, preds_T):
        return (preds_S - preds_T).abs().mean()


def test_parts_of_somebody_else_are_completed():
    made = entry(
        [VECTOR],
        [VECTOR],
        neck=dict(type=PlainNeck),
        loss=dict(type=PlainLoss),
    )
    neck, loss = made.parts
    assert type(neck).__name__ == 'PlainNeck' and isinstance(neck, PlainNeck)
    assert neck.asks_for == ('gt_labels',) and not neck.joint
    assert loss.asks_for == () and not loss.overrides('draw') and loss.prepared
    made.init_weights()
    losses, _ = compare(made, same=True, gt_labels=None)
    assert losses['loss_kd'] == 0
