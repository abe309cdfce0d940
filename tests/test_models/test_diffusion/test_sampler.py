import pytest
import torch
from diffusers import DDIMScheduler

from mmdiffkd.models.diffusion import DDIMSampler, NoiseSchedule


@pytest.mark.parametrize(
    'num_steps, start_timestep, visited',
    [
        (5, 500, [400, 300, 200, 100, 0]),
        (3, 500, [332, 166, 0]),
        (1, 500, [0]),
        (10, 500, list(range(450, -1, -50))),
        (4, 1000, [750, 500, 250, 0]),
        (3, 3, [2, 1, 0]),
    ],
)
def test_visits(num_steps, start_timestep, visited):
    sampler = DDIMSampler(num_steps, start_timestep)
    assert sampler.timesteps == visited
    assert [t for t, _, _ in sampler.steps] == visited


@pytest.mark.parametrize('prediction', ['constant', 'wave', 'time', 'random'])
@pytest.mark.parametrize(
    # diffusers steps by 1000 // num_inference_steps; ours must equal that.
    'num_steps, start_timestep, num_inference_steps',
    [
        (5, 500, 10),
        (3, 500, 6),
        (1, 500, 2),
        (10, 500, 20),
        (20, 500, 40),
        (3, 300, 10),
        (4, 1000, 4),
        (2, 2, 1000),
    ],
)
def test_equals_diffusers(
    num_steps, start_timestep, num_inference_steps, prediction
):
    generator = torch.Generator().manual_seed(num_steps)

    def randn():
        return torch.randn(
            2, 3, 4, 5, generator=generator, dtype=torch.float64
        )

    drawn = {t: randn() for t in range(1000)}
    denoiser = {
        'constant': lambda latent, t: torch.ones_like(latent),
        'wave': lambda latent, t: torch.sin(3 * latent),
        'time': lambda latent, t: latent * (t / 500 - 1),
        'random': lambda latent, t: drawn[int(t)],
    }[prediction]
    start = randn()

    reference = DDIMScheduler(
        beta_start=1e-4,
        beta_end=0.02,
        beta_schedule='linear',
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=0,
        prediction_type='epsilon',
    )
    # Its last bits depend on the processor, ours do not.
    torch.testing.assert_close(
        reference.alphas_cumprod,
        NoiseSchedule().alpha_bars,
        rtol=1e-5,
        atol=0,
    )
    reference.alphas_cumprod = NoiseSchedule().alpha_bars
    reference.set_timesteps(num_inference_steps)
    expected = start
    visited = reference.timesteps[-num_steps:]
    for timestep in visited:
        noise = denoiser(expected, timestep)
        expected = reference.step(noise, timestep, expected).prev_sample

    sampler = DDIMSampler(num_steps, start_timestep)
    assert sampler.timesteps == visited.tolist()
    actual = sampler.sample(denoiser, start)
    # diffusers computes its coefficients in float32.
    error = (actual - expected).abs().max() / expected.abs().max()
    assert error < 1e-6


def test_true_noise_leads_to_the_clean_latent():
    schedule = NoiseSchedule()
    clean, noise = torch.randn(2, 4, 8, dtype=torch.float64)
    noisy = schedule.add_noise(clean, noise, torch.full((4,), 400))
    refined = DDIMSampler(schedule=schedule).sample(lambda *_: noise, noisy)
    torch.testing.assert_close(refined, clean)


def test_trajectory_takes_every_step():
    trajectory = []
    latent = torch.randn(2, 3)
    sampler = DDIMSampler()
    refined = sampler.sample(lambda z, t: z, latent, trajectory)
    assert len(trajectory) == 5
    assert torch.equal(trajectory[-1], refined)
    _, latent_scale, noise_scale = sampler.steps[0]
    expected = (latent_scale + noise_scale) * latent
    torch.testing.assert_close(trajectory[0], expected)


@pytest.mark.parametrize('grad_steps', range(6))
def test_gradients_of_the_last_steps(grad_steps):
    # The denoiser predicts weight * latent; the derivatives by hand.
    start = torch.tensor([0.7, -1.2], dtype=torch.float64, requires_grad=True)
    weight = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    sampler = DDIMSampler(grad_steps=grad_steps)
    refined = sampler.sample(lambda latent, t: weight * latent, start)
    by_start, by_weight = torch.autograd.grad(
        refined.sum(), (start, weight), allow_unused=True
    )

    latent = start.detach().clone()
    along_start, along_weight = torch.ones(2), torch.zeros(2)
    for i, (_, latent_scale, noise_scale) in enumerate(sampler.steps):
        tracked = i >= 5 - grad_steps
        passed = latent_scale + tracked * noise_scale * 0.3
        along_start = passed * along_start
        along_weight = passed * along_weight + tracked * noise_scale * latent
        latent = (latent_scale + noise_scale * 0.3) * latent
    torch.testing.assert_close(refined.detach(), latent)
    torch.testing.assert_close(by_start, along_start.double())
    assert (by_weight is None) == (grad_steps == 0)
    if grad_steps:
        torch.testing.assert_close(by_weight, along_weight.sum())


def test_all_steps_have_gradients_by_default():
    assert DDIMSampler().grad_steps == 5
    assert DDIMSampler(3).grad_steps == 3


@pytest.mark.parametrize('grad_steps', [0, 2])
def test_untracked_steps_leave_autocast_its_gradients(grad_steps):
    # Weights cast under `no_grad` must not serve the passes after it.
    denoiser = torch.nn.Linear(3, 3)
    latent = torch.randn(2, 3)
    sampler = DDIMSampler(grad_steps=grad_steps)
    with torch.autocast('cpu', torch.bfloat16):
        refined = sampler.sample(lambda z, t: denoiser(z), latent)
        loss = refined.sum() + denoiser(latent).sum()
    loss.backward()
    assert denoiser.weight.grad.abs().sum() > 0


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_walks_in_float32(dtype):
    seen = []

    def denoiser(latent, timestep):
        seen.append(latent.dtype)
        return torch.ones_like(latent).to(dtype)

    latent = torch.randn(2, 3).to(dtype)
    refined = DDIMSampler().sample(denoiser, latent)
    assert refined.dtype == torch.float32
    assert seen == [torch.float32] * 5
    expected = DDIMSampler().sample(
        lambda z, t: torch.ones_like(z), latent.double()
    )
    torch.testing.assert_close(refined.double(), expected, rtol=0, atol=1e-5)


def test_another_schedule():
    schedule = NoiseSchedule(beta_end=0.01)
    assert DDIMSampler(schedule=schedule).steps != DDIMSampler().steps


@pytest.mark.parametrize(
    'arguments, named',
    [
        ({'num_steps': 0}, 'num_steps=0'),
        ({'num_steps': -1}, 'num_steps=-1'),
        ({'num_steps': 501}, 'num_steps=501.*start_timestep=500'),
        ({'start_timestep': 0}, 'start_timestep=0'),
        ({'grad_steps': -1}, 'grad_steps=-1.*num_steps=5'),
        ({'grad_steps': 6}, 'grad_steps=6.*num_steps=5'),
        (
            {'start_timestep': 1001},
            'start_timestep=1001.*num_train_timesteps=1000',
        ),
    ],
)
def test_arguments_out_of_range(arguments, named):
    with pytest.raises(ValueError, match=named):
        DDIMSampler(**arguments)
