import pytest
import torch
from tiny_entries import MAP_S, MAP_T, VECTOR, compare, entry, tapped
from torch import nn

from mmdiffkd.models.necks import ProjectionNeck
from mmdiffkd.registry import MODELS


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
    losses, _ = compare(made, gt_labels=7)
    assert losses['loss_kd'] == 7


class DrawingLoss(nn.Module):
    """Remembers what was drawn for it."""

    def draw(self, student, teacher, generator):
        return dict(noise=torch.rand(3, generator=generator))

    def forward(self, preds_S, preds_T, noise):
        self.noise = noise
        return (preds_S - preds_T).square().mean()


def test_loss_draws_from_its_own_stream():
    made = entry(loss=dict(type=DrawingLoss))
    drawn = []
    for step in (0, 0, 1):
        compare(made, seed=(1, 0, step))
        drawn.append(made.losses[0].noise)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


@pytest.mark.parametrize('layout', ['NHWC', 'NLC', 'NCHW'])
def test_teachers_maps_lie_plain_in_memory(layout):
    """Group norm over a channels-last map without gradient would crash."""

    class Norm(ProjectionNeck):
        def __init__(self, student_channels, teacher_channels):
            super().__init__(student_channels, teacher_channels)
            self.norm = nn.GroupNorm(2, teacher_channels)

        def forward(self, student, teacher):
            aligned = super().forward(student, teacher)
            return aligned._replace(teacher=self.norm(teacher))

    MODELS.register_module(module=Norm)
    try:
        shapes = {
            'NCHW': (2, 64, 8, 8),
            'NHWC': (2, 8, 8, 64),
            'NLC': (2, 64, 64),
        }
        grown = {'NHWC': (2, 16, 16, 64), 'NLC': (2, 256, 64)}
        teacher = tapped(shapes[layout], grown.get(layout))
        made = entry(
            teachers=[teacher], neck=dict(type='Norm'), teacher_layout=layout
        )
    finally:
        MODELS.module_dict.pop('Norm')
    tensor = torch.rand(shapes[layout])
    if layout == 'NCHW':
        tensor = tensor.contiguous(memory_format=torch.channels_last)
    student = torch.rand(MAP_S, requires_grad=True)
    losses, _ = made([student], [tensor], (32, 32), {}, (1, 0, 0))
    losses['loss_kd'].backward()
    assert made.necks[0].norm.weight.grad.abs().max() > 0
