"""Each control is DiffKD's neck, or the plain one, with one thing changed."""

import pytest
import torch
from torch import nn

from mmdiffkd.analysis.controls import (
    TIMESTEP,
    FrozenDenoiserNeck,
    LinearProjectorNeck,
    OneTimestepNeck,
    ProjectorNeck,
    StandardizedTargetNeck,
    UnprojectedNeck,
)
from mmdiffkd.models.necks import DiffKDNeck, ProjectionNeck


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def maps(channels=6, teacher_channels=8):
    return torch.randn(4, channels, 3, 3), torch.randn(
        4, teacher_channels, 3, 3
    )


def with_weights_of(kind, neck, **options):
    """A control that has the weights of another neck where it has them."""
    control = kind(6, 8, latent_channels=4, **options)
    mine = control.state_dict()
    control.load_state_dict(
        {k: v for k, v in neck.state_dict().items() if k in mine}, strict=False
    )
    return control


def test_one_timestep_changes_the_diffusion_loss_alone():
    neck = DiffKDNeck(6, 8, latent_channels=4)
    control = with_weights_of(OneTimestepNeck, neck)
    student, teacher = maps()
    drawn = control.draw(student, teacher)
    assert drawn['timesteps'].tolist() == [TIMESTEP] * 4
    expected = neck(student, teacher, **drawn)
    found = control(student, teacher, **drawn)
    assert torch.equal(found.student, expected.student)
    other = neck.draw(student, teacher)['timesteps']
    assert other.unique().numel() > 1


def test_frozen_denoiser():
    neck = FrozenDenoiserNeck(6, 8, latent_channels=4, diffusion_weight=0)
    aligned = neck(*maps())
    (aligned.student.sum() + sum(aligned.losses.values())).backward()
    assert all(p.grad is None for p in neck.denoiser.parameters())
    assert neck.student_projection.weight.grad is not None


@pytest.mark.parametrize('standardize', [False, True])
def test_projector_is_diffkds_networks_without_diffusion(standardize):
    options = {'standardize_teacher': standardize}
    neck = DiffKDNeck(6, 8, latent_channels=4, **options)
    control = with_weights_of(ProjectorNeck, neck, **options)
    control.denoiser = neck.denoiser.prediction
    student, teacher = maps()
    assert control.draw(student, teacher) == {}
    found = control(student, teacher)
    assert list(found.losses) == ['loss_autoencoder'] and not found.metrics
    assert control.trajectory(student, teacher) == []
    expected = nn.Sequential(
        neck.student_projection,
        neck.denoiser.prediction,
        neck.output_projection,
    )(student)
    torch.testing.assert_close(found.student, expected)
    torch.testing.assert_close(found.teacher, neck.encode(teacher)[0])


def test_all_of_a_projector_is_trained():
    for kind in (ProjectorNeck, LinearProjectorNeck):
        neck = kind(6, 8)
        aligned = neck(*maps())
        (aligned.student * torch.randn_like(aligned.student)).sum().backward()
        assert all(p.grad is not None for p in neck.parameters())


def test_linear_projector_has_no_deep_part():
    neck = LinearProjectorNeck(6, 8)
    deep = ProjectorNeck(6, 8)
    names = {name for name, _ in deep.named_parameters()}
    own = {name for name, _ in neck.named_parameters()}
    assert own == {n for n in names if not n.startswith('denoiser.')}


def test_unprojected_walk():
    neck = UnprojectedNeck(5, 5, feature='vector')
    assert not any('projection' in name for name, _ in neck.named_parameters())
    student, teacher = torch.randn(4, 5), torch.randn(4, 5)
    assert torch.equal(neck.project(student), student)
    drawn = neck.draw(student, teacher)
    latent, _ = neck.match_noise(student, drawn['noise'])
    walked = neck.sampler.sample(neck.denoiser, latent)
    aligned = neck(student, teacher, **drawn)
    torch.testing.assert_close(aligned.student, walked)


def test_standardized_target():
    neck = StandardizedTargetNeck(6, 8)
    student, teacher = maps()
    aligned = neck(student, 3 * teacher + 2)
    plain = ProjectionNeck(6, 8)
    plain.load_state_dict(neck.state_dict(), strict=False)
    torch.testing.assert_close(
        aligned.student, plain(student, teacher).student
    )
    dims = (0, 2, 3)
    torch.testing.assert_close(aligned.teacher.mean(dims), torch.zeros(8))
    spread = aligned.teacher.std(dims, correction=0)
    torch.testing.assert_close(spread, torch.ones(8), rtol=1e-4, atol=0)
