import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope
from no_sync import NoSynchronisation, check_on_a_gpu
from reference_state import load_reference_state
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from mmdiffkd.analysis.memory import peak_memory
from mmdiffkd.models.diffusion import (
    BottleneckDenoiser,
    memory_format,
)
from mmdiffkd.models.necks import Aligned, DiffKDNeck, DSKDNeck
from mmdiffkd.registry import MODELS

DATA = Path(__file__).parents[2] / 'data'
# Arguments of a neck and the spatial size of its features.
CASES = {
    'map': ({}, (5, 7)),
    'autoencoder': ({'latent_channels': 8}, (5, 7)),
    'vector': ({'feature': 'vector'}, ()),
    'vector autoencoder': ({'feature': 'vector', 'latent_channels': 8}, ()),
    'standardized': ({'standardize_teacher': True}, (5, 7)),
    'without noise': ({'noise_matching': False}, (5, 7)),
}
HALVES = [torch.float16, torch.bfloat16]
# Options that change what a step costs, and not what comes out of it.
COSTS = {
    'plain': {},
    'some steps': {'grad_steps': 2},
    'no steps': {'grad_steps': 0},
    'checkpointed': {'with_cp': True},
    'both': {'grad_steps': 2, 'with_cp': True},
}

all_cases = pytest.mark.parametrize(
    'arguments, size', CASES.values(), ids=CASES.keys()
)
half_cases = pytest.mark.parametrize(
    'arguments, size',
    [CASES['autoencoder'], CASES['vector']],
    ids=['autoencoder', 'vector'],
)


all_costs = pytest.mark.parametrize('costs', COSTS.values(), ids=COSTS.keys())


@pytest.fixture(params=['plain', 'channels last'])
def any_layout(request, monkeypatch):
    """Both layouts of maps, whatever their channels and dtype."""
    least = 1 if request.param == 'channels last' else float('inf')
    table = {
        ('cpu', dtype): least
        for dtype in (torch.float64, torch.float32, *HALVES)
    }
    monkeypatch.setattr(memory_format, '_CHANNELS_LAST_FROM', table)


def make(arguments, size, batch_size=4, dtype=torch.float32, seed=None):
    """A neck from 6 to 12 channels, two features and the random tensors."""
    if seed is not None:
        torch.manual_seed(seed)
    neck = DiffKDNeck(6, 12, **arguments).to(dtype)
    student = torch.randn(batch_size, 6, *size, dtype=dtype)
    teacher = torch.randn(batch_size, 12, *size, dtype=dtype)
    generator = torch.Generator().manual_seed(1)
    return neck, student, teacher, neck.draw(student, teacher, generator)


def total(aligned):
    distance = F.mse_loss(aligned.student.float(), aligned.teacher.float())
    return distance + sum(aligned.losses.values())


def train(neck, student, teacher, drawn):
    """Everything that a step leaves behind."""
    neck.zero_grad()
    student = student.clone().requires_grad_()
    aligned = neck(student, teacher, **drawn)
    total(aligned).backward()
    gradients = {n: p.grad for n, p in neck.named_parameters()}
    buffers = {n: b.clone() for n, b in neck.named_buffers()}
    return aligned, student.grad, gradients, buffers


def receivers(neck, loss):
    """Names of the stages whose parameters a loss reaches."""
    neck.zero_grad()
    loss.backward(retain_graph=True)
    return {
        name.split('.')[0]
        for name, parameter in neck.named_parameters()
        if parameter.grad is not None
    }


def count(module):
    return sum(p.numel() for p in module.parameters())


# Equality with the released module


@pytest.mark.parametrize('with_cp', [False, True])
@pytest.mark.parametrize('mode', ['train', 'eval'])
@pytest.mark.parametrize('file', ['feature_with_autoencoder', 'logits'])
def test_equals_the_released_module(file, mode, with_cp, any_layout):
    arrays = np.load(DATA / f'{file}.npz')
    meta = json.loads(str(arrays['meta']))
    vectors = meta['kernel_size'] == 1

    def tensor(name):
        value = torch.from_numpy(arrays[name])
        return value.flatten(1) if vectors and value.dim() == 4 else value

    neck = DiffKDNeck(
        meta['student_channels'],
        meta['teacher_channels'],
        meta['ae_channels'] if meta['use_ae'] else None,
        feature='vector' if vectors else 'map',
        num_inference_steps=meta['inference_steps'],
        num_train_timesteps=meta['num_train_timesteps'],
        with_cp=with_cp,
    )
    load_reference_state(neck, arrays).train(mode == 'train')
    assert neck.sampler.timesteps == meta['timesteps_visited']

    gammas = []
    neck.noise_matching.register_forward_hook(
        lambda module, inputs, outputs: gammas.append(outputs[1])
    )
    student = tensor('student').requires_grad_()
    refined, target, losses, metrics = neck(
        student,
        tensor('teacher'),
        noise=tensor('init_noise'),
        diffusion_noise=tensor('diffusion_noise'),
        timesteps=tensor('diffusion_timesteps'),
    )
    mse = F.mse_loss(refined, target)
    (mse + sum(losses.values())).backward()
    gradients = [p.grad.flatten() for p in neck.denoiser.parameters()]

    results = {
        'refined': refined,
        'teacher_target': target,
        'gamma': gammas[0],
        'mse': mse,
        'grad_student': student.grad,
        'grad_norm_denoiser': torch.cat(gradients).norm(),
        **losses,
    }
    if not meta['use_ae']:
        assert 'loss_autoencoder' not in losses
        assert tensor(f'{mode}/loss_autoencoder').isnan()
        results['loss_autoencoder'] = torch.tensor(torch.nan).double()
    names = {n for n in arrays if n.startswith(f'{mode}/')}
    assert {f'{mode}/{name}' for name in results} == names
    for name, result in results.items():
        torch.testing.assert_close(
            result.detach(),
            tensor(f'{mode}/{name}'),
            rtol=0,
            atol=1e-9,
            equal_nan=True,
            msg=lambda text, name=name: f'{name}: {text}',
        )
    gamma = tensor(f'{mode}/gamma')
    torch.testing.assert_close(metrics['gamma'], gamma.mean())
    torch.testing.assert_close(metrics['gamma_std'], gamma.std(correction=0))


def test_denoises_before_it_trains_the_denoiser():
    # The order of batch norm's passes, and so its statistics, as released.
    neck, student, teacher, drawn = make(*CASES['autoencoder'])
    seen = []
    neck.denoiser.register_forward_hook(
        lambda module, inputs, outputs: seen.append(inputs[1])
    )
    neck(student, teacher, **drawn)
    assert seen[:5] == [400, 300, 200, 100, 0]
    assert len(seen) == 6
    assert torch.equal(seen[5], drawn['timesteps'])
    assert neck.denoiser.prediction[-1].num_batches_tracked == 6
    assert neck.output_projection[-1].num_batches_tracked == 1
    assert neck.autoencoder.encoder[-1].num_batches_tracked == 1


@pytest.mark.parametrize(
    'arguments, millions',
    [
        # ResNet-34 to ResNet-18, with the paper's latent of 1024 channels.
        (dict.fromkeys(('student', 'teacher'), 512) | {'latent': 1024}, 7.64),
        # Logits of ImageNet.
        (dict.fromkeys(('student', 'teacher'), 1000), 23.3),
    ],
)
def test_parameter_counts(arguments, millions):
    neck = DiffKDNeck(
        *(arguments.get(key) for key in ('student', 'teacher', 'latent')),
        feature='map' if 'latent' in arguments else 'vector',
    )
    digits = 2 if millions < 10 else 1
    assert round(count(neck) / 1e6, digits) == millions


def test_parameter_counts_by_stage():
    neck = DiffKDNeck(512, 512, 1024)
    published = {
        'autoencoder': 1.05,
        'student_projection': 0.53,
        'denoiser': 4.60,
        'noise_matching': 0.42,
        'output_projection': 1.05,
    }
    counts = {n: round(count(m) / 1e6, 2) for n, m in neck.named_children()}
    assert {name: counts[name] for name in published} == published


# Stages


@all_cases
@pytest.mark.parametrize('training', [True, False])
def test_forward_is_its_stages(arguments, size, training):
    neck, student, teacher, drawn = make(arguments, size)
    neck.train(training)
    aligned = neck(student, teacher, **drawn)
    assert isinstance(aligned, Aligned)

    target, autoencoder_loss = neck.encode(teacher)
    if training and 'standardize_teacher' not in arguments:
        # Batch norm normalises by the batch: statistics leave no trace.
        torch.testing.assert_close(aligned.teacher, target)
    latent = neck.project(student)
    channels = arguments.get('latent_channels', 12)
    assert latent.shape == target.shape == (4, channels, *size)
    torch.testing.assert_close(
        aligned.student, neck.denoise(latent, drawn['noise'])
    )
    torch.testing.assert_close(
        aligned.losses['loss_diffusion'],
        neck.diffusion_loss(
            target, drawn['diffusion_noise'], drawn['timesteps']
        ),
    )
    assert (autoencoder_loss is not None) == ('latent_channels' in arguments)
    if autoencoder_loss is not None:
        torch.testing.assert_close(
            aligned.losses['loss_autoencoder'], autoencoder_loss
        )
    has_gamma = 'noise_matching' not in arguments
    assert set(aligned.metrics) == (
        {'gamma', 'gamma_std'} if has_gamma else set()
    )


def test_weights():
    neck, student, teacher, drawn = make(*CASES['autoencoder'])
    plain = neck(student, teacher, **drawn)
    neck.diffusion_weight, neck.autoencoder_weight = 2.0, 0.5
    weighted = neck(student, teacher, **drawn)
    for name, weight in [('loss_diffusion', 2.0), ('loss_autoencoder', 0.5)]:
        torch.testing.assert_close(
            weighted.losses[name], weight * plain.losses[name]
        )
    assert torch.equal(weighted.student, plain.student)


def test_without_autoencoder_the_target_is_the_teacher():
    neck, student, teacher, drawn = make(*CASES['map'])
    assert torch.equal(neck(student, teacher, **drawn).teacher, teacher)


def test_standardized_teacher():
    neck, student, teacher, _ = make(*CASES['standardized'])
    for _ in range(100):
        target, _ = neck.encode(3 + 5 * teacher)
    torch.testing.assert_close(
        target.mean((0, 2, 3)), torch.zeros(12), rtol=0, atol=1e-5
    )
    torch.testing.assert_close(
        target.var((0, 2, 3), correction=0), torch.ones(12)
    )
    # In eval mode the statistics seen in training do it.
    neck.eval()
    torch.testing.assert_close(
        neck.encode(3 + 5 * teacher)[0], target, rtol=0, atol=0.02
    )
    assert not list(neck.standardization.parameters())


def test_without_noise_matching_noise_changes_nothing():
    neck, student, teacher, drawn = make(*CASES['without noise'])
    neck.eval()
    aligned = neck(student, teacher, **drawn)
    other = neck(student, teacher, **(drawn | {'noise': drawn['noise'] + 1}))
    assert torch.equal(aligned.student, other.student)
    assert not any('noise_matching' in key for key in neck.state_dict())


def test_denoiser_can_be_configured():
    neck = DiffKDNeck(6, 12, denoiser={'reduction': 1})
    assert neck.denoiser.prediction[0].block[0].out_channels == 12
    neck = DiffKDNeck(6, 12, feature='vector', denoiser={'expansion': 2})
    assert neck.denoiser.prediction[0].out_features == 24
    neck = DiffKDNeck(6, 12, denoiser={'type': BottleneckDenoiser})
    assert isinstance(neck.denoiser, BottleneckDenoiser)


class Normalizing(torch.nn.Module):
    """A denoiser of one's own that begins with a norm."""

    num_timesteps = 1000

    def __init__(self, channels, norm):
        super().__init__()
        self.norm = norm(channels)
        self.predict = torch.nn.Conv2d(channels, channels, 1)

    def forward(self, latent, timestep):
        return self.predict(self.norm(latent))


@pytest.mark.parametrize(
    'kind', [DiffKDNeck, partial(DSKDNeck, guidance_scale=0)]
)
@pytest.mark.parametrize(
    'norm',
    [
        lambda channels: torch.nn.GroupNorm(8, channels),
        lambda channels: torch.nn.InstanceNorm2d(channels, affine=True),
        lambda channels: torch.nn.LayerNorm([channels, 4, 4]),
        lambda channels: torch.nn.BatchNorm2d(channels),
    ],
    ids=['group', 'instance', 'layer', 'batch'],
)
def test_own_denoiser_that_begins_with_a_norm(kind, norm, any_layout):
    # Group norm over a channels-last tensor without gradient would crash.
    denoiser = {'type': Normalizing, 'norm': norm}
    if Normalizing.__name__ not in MODELS:
        MODELS.register_module(module=Normalizing)
    neck = kind(32, 64, denoiser=denoiser)
    student, teacher = torch.randn(2, 32, 4, 4), torch.randn(2, 64, 4, 4)
    teacher = teacher.contiguous(memory_format=torch.channels_last)
    aligned = neck(student, teacher)
    sum(aligned.losses.values()).backward()
    for parameter in neck.denoiser.parameters():
        assert parameter.grad.abs().max() > 0


def test_builds_under_another_packages_scope():
    with DefaultScope.overwrite_default_scope('mmengine'):
        neck = MODELS.build(
            {
                'type': 'mmdiffkd.DiffKDNeck',
                'student_channels': 6,
                'teacher_channels': 12,
            }
        )
    assert isinstance(neck, DiffKDNeck)


def test_another_walk():
    neck = DiffKDNeck(6, 12, num_inference_steps=3, start_timestep=300)
    assert neck.sampler.timesteps == [200, 100, 0]
    neck = DiffKDNeck(6, 12, num_train_timesteps=500)
    assert len(neck.schedule.alpha_bars) == 500


# Randomness


@all_cases
def test_draw(arguments, size):
    neck, student, teacher, drawn = make(arguments, size)
    shape = (4, arguments.get('latent_channels', 12), *size)
    assert set(drawn) == {'noise', 'diffusion_noise', 'timesteps'}
    assert drawn['noise'].shape == drawn['diffusion_noise'].shape == shape
    assert drawn['noise'].dtype == torch.float32
    assert not torch.equal(drawn['noise'], drawn['diffusion_noise'])
    assert drawn['timesteps'].shape == (4,)

    state = torch.get_rng_state()
    again = neck.draw(student, teacher, torch.Generator().manual_seed(1))
    neck(student, teacher, **again)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(again[name], drawn[name]) for name in drawn)


def test_timesteps_cover_the_schedule():
    neck, *_ = make(*CASES['vector'])
    many = torch.ones(20_000, 12)
    timesteps = neck.draw(many, many, torch.Generator())['timesteps']
    assert timesteps.unique().numel() == 1000
    assert (timesteps.min(), timesteps.max()) == (0, 999)


@all_cases
def test_what_is_left_out_is_drawn(arguments, size):
    neck, student, teacher, _ = make(arguments, size)
    state = torch.get_rng_state()
    aligned = neck(student, teacher)
    assert not torch.equal(torch.get_rng_state(), state)
    again = neck(student, teacher)
    assert not torch.equal(
        aligned.losses['loss_diffusion'], again.losses['loss_diffusion']
    )


# Gradients


@all_cases
def test_where_gradients_flow(arguments, size):
    neck, student, teacher, drawn = make(arguments, size)
    student.requires_grad_()
    teacher.requires_grad_()
    aligned = neck(student, teacher, **drawn)
    assert not aligned.teacher.requires_grad
    assert not any(m.requires_grad for m in aligned.metrics.values())

    path = {'student_projection', 'denoiser', 'output_projection'}
    if neck.noise_matching is not None:
        path.add('noise_matching')
    distance = F.mse_loss(aligned.student, aligned.teacher)
    assert receivers(neck, distance) == path
    assert all(p.grad is not None for p in neck.denoiser.parameters())
    assert student.grad.abs().sum() > 0

    student.grad = None
    loss = aligned.losses['loss_diffusion']
    assert receivers(neck, loss) == {'denoiser'}
    assert all(p.grad is not None for p in neck.denoiser.parameters())
    if neck.autoencoder is not None:
        loss = aligned.losses['loss_autoencoder']
        assert receivers(neck, loss) == {'autoencoder'}
        assert all(p.grad is not None for p in neck.autoencoder.parameters())
    assert student.grad is None
    assert teacher.grad is None


def test_distance_trains_the_denoiser_through_every_step():
    neck, student, teacher, drawn = make(*CASES['map'])
    outputs = []

    def keep(module, inputs, output):
        output.retain_grad()
        outputs.append(output)

    neck.denoiser.register_forward_hook(keep)
    aligned = neck(student, teacher, **drawn)
    F.mse_loss(aligned.student, aligned.teacher).backward()
    assert all(noise.grad.abs().sum() > 0 for noise in outputs[:5])
    assert outputs[5].grad is None


def test_every_gradient_is_the_default():
    arguments, size = CASES['map']
    default = train(*make(arguments, size, seed=0))
    all_steps = train(*make(arguments | {'grad_steps': 5}, size, seed=0))
    torch.testing.assert_close(all_steps, default, rtol=0, atol=0)


@all_cases
@pytest.mark.parametrize('grad_steps', range(5))
def test_fewer_steps_with_gradients(arguments, size, grad_steps):
    expected = train(*make(arguments, size, seed=0))
    neck, student, teacher, drawn = make(
        arguments | {'grad_steps': grad_steps}, size, seed=0
    )
    outputs = []
    handle = neck.denoiser.register_forward_hook(
        lambda module, inputs, output: outputs.append(output)
    )
    actual = train(neck, student, teacher, drawn)
    handle.remove()
    # Tensors and statistics are the same bit for bit, gradients are not.
    for i in (0, 3):
        torch.testing.assert_close(actual[i], expected[i], rtol=0, atol=0)
    assert [output.requires_grad for output in outputs] == [
        *[False] * (5 - grad_steps),
        *[True] * (grad_steps + 1),
    ]
    assert not torch.allclose(actual[1], expected[1])
    assert actual[1].flatten(1).abs().sum(1).min() > 0
    assert all(gradient is not None for gradient in actual[2].values())
    for name, gradient in actual[2].items():
        if name.startswith(('output_projection', 'autoencoder')):
            assert torch.equal(gradient, expected[2][name])

    aligned = neck(student, teacher, **drawn)
    distance = F.mse_loss(aligned.student, aligned.teacher)
    reached = receivers(neck, distance)
    assert ('denoiser' in reached) == (grad_steps > 0)
    assert {'student_projection', 'output_projection'} <= reached


def test_without_steps_the_student_gets_the_linear_path():
    neck, student, teacher, drawn = make({'grad_steps': 0}, (5, 7))
    latent = neck.project(student).detach().requires_grad_()
    walked = neck.sampler.sample(neck.denoiser, latent)
    (gradient,) = torch.autograd.grad(walked.sum(), latent)
    # 1 / sqrt(alpha-bar) at the first timestep visited, 400.
    gain = neck.schedule.alpha_bars[400].rsqrt()
    torch.testing.assert_close(gradient, gain.expand_as(gradient))


# Activation checkpointing


@pytest.mark.exact
@all_cases
@pytest.mark.parametrize('grad_steps', [None, 2])
@pytest.mark.parametrize('autocast', [False, True])
def test_checkpointing_changes_nothing(
    arguments, size, grad_steps, autocast, any_layout
):
    arguments = arguments | {'grad_steps': grad_steps}
    with torch.autocast('cpu', torch.bfloat16, enabled=autocast):
        expected = train(*make(arguments, size, seed=0))
        actual = train(*make(arguments | {'with_cp': True}, size, seed=0))
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


@pytest.mark.exact
def test_checkpointing_with_its_own_noise():
    results = []
    for with_cp in (False, True):
        neck, student, teacher, _ = make(
            CASES['map'][0] | {'with_cp': with_cp}, (5, 7), seed=0
        )
        results.append(train(neck, student, teacher, {}))
    torch.testing.assert_close(*results, rtol=0, atol=0)


def test_checkpointing_runs_the_walk_twice():
    neck, student, teacher, drawn = make({'with_cp': True}, (5, 7))
    seen = []
    neck.denoiser.register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[1])
    )
    aligned = neck(student, teacher, **drawn)
    assert len(seen) == 6
    total(aligned).backward()
    # The pass of the diffusion loss is the last one before the backward pass
    # begins: nothing would be saved.
    assert seen[6:] == [0, 100, 200, 300, 400]
    seen.clear()
    with torch.no_grad():
        neck(student, teacher, **drawn)
    assert len(seen) == 6


def test_checkpointing_saves_memory():
    def peak(**arguments):
        neck = DiffKDNeck(32, 32, **arguments)
        student, teacher = torch.randn(2, 2, 32, 40, 40)
        student.requires_grad_()

        def step():
            drawn = neck.draw(student, teacher)
            total(neck(student, teacher, **drawn)).backward()

        step()
        return peak_memory(step)

    plain = peak()
    assert peak(with_cp=True) < 0.5 * plain
    assert peak(grad_steps=1) < 0.6 * plain
    assert peak(grad_steps=1, with_cp=True) < peak(with_cp=True)


# What a step costs


@pytest.mark.parametrize(
    'arguments, size', [CASES['autoencoder'], CASES['vector']]
)
@all_costs
def test_cost_is_linear_in_the_steps(arguments, size, costs):
    def operators(num_inference_steps):
        neck, student, teacher, drawn = make(
            arguments | {'num_inference_steps': num_inference_steps} | costs,
            size,
        )
        with Count() as count:
            total(neck(student, teacher, **drawn)).backward()
        return count.operators

    counts = [operators(steps) for steps in (2, 3, 4, 9)]
    step = counts[1] - counts[0]
    assert counts[2] == counts[1] + step
    assert counts[3] == counts[1] + 6 * step


class Count(TorchDispatchMode):
    """Counts operators."""

    operators = 0

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        self.operators += 1
        return operator(*args, **(kwargs or {}))


@all_cases
@all_costs
@pytest.mark.parametrize('autocast', [False, True])
def test_the_host_waits_for_nothing(arguments, size, costs, autocast):
    neck, student, teacher, _ = make(arguments | costs, size)
    generator = torch.Generator().manual_seed(1)
    with NoSynchronisation():
        with torch.autocast('cpu', torch.bfloat16, enabled=autocast):
            drawn = neck.draw(student, teacher, generator)
            loss = total(neck(student, teacher, **drawn))
        loss.backward()


# Precision


@half_cases
@pytest.mark.parametrize('dtype', HALVES)
def test_training_under_autocast_is_finite(arguments, size, dtype):
    neck, student, teacher, _ = make(arguments, size, batch_size=8)
    optimizer = torch.optim.SGD(neck.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for _ in range(8):
        with torch.autocast('cpu', dtype):
            aligned = neck(student, teacher, **neck.draw(student, teacher))
            loss = total(aligned)
        assert aligned.student.isfinite().all()
        assert all(v.isfinite() for v in aligned.losses.values())
        assert all(v.dtype == torch.float32 for v in aligned.losses.values())
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad.isfinite().all() for p in neck.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert all(p.isfinite().all() for p in neck.parameters())
    assert losses[-1] < losses[0]


@half_cases
@pytest.mark.parametrize('dtype', HALVES)
def test_autocast_is_near_float32(arguments, size, dtype):
    neck, student, teacher, drawn = make(arguments, size)
    expected = neck(student, teacher, **drawn)
    with torch.autocast('cpu', dtype):
        actual = neck(student, teacher, **drawn)
    error = (actual.student.float() - expected.student).norm()
    assert error < 0.1 * expected.student.norm()
    for name, value in expected.losses.items():
        assert actual.losses[name].item() == pytest.approx(
            value.item(), rel=0.05
        )


@half_cases
def test_autocast_leaves_float64(arguments, size, any_layout):
    results = []
    for enabled in (False, True):
        tensors = make(arguments, size, dtype=torch.float64, seed=0)
        with torch.autocast('cpu', torch.bfloat16, enabled=enabled):
            results.append(train(*tensors))
    torch.testing.assert_close(*results, rtol=0, atol=0)


def test_schedule_survives_a_construction_on_meta():
    with torch.device('meta'):
        neck = DiffKDNeck(6, 12)
    neck.to_empty(device='cpu')
    reference = DiffKDNeck(6, 12)
    assert torch.equal(neck.schedule.alpha_bars, reference.schedule.alpha_bars)
    assert neck.sampler.steps == reference.sampler.steps


@all_cases
@all_costs
def test_runs_on_meta(arguments, size, costs):
    # Which also proves that no value is read: there are none.
    neck, student, teacher, drawn = make(arguments | costs, size)
    drawn = {name: value.to('meta') for name, value in drawn.items()}
    student = student.to('meta').requires_grad_()
    aligned = neck.to('meta')(student, teacher.to('meta'), **drawn)
    channels = arguments.get('latent_channels', 12)
    assert aligned.student.shape == (4, channels, *size)
    total(aligned).backward()
    assert student.grad.shape == student.shape


# Compilation


@pytest.mark.exact
@pytest.mark.parametrize('costs', [{'grad_steps': 1}, {'with_cp': True}])
def test_compiles_with_its_options(costs, any_layout):
    torch._dynamo.reset()
    arguments, size = CASES['map']
    arguments = arguments | costs | {'num_inference_steps': 2}
    expected = train(*make(arguments, size, seed=0))
    neck, *tensors = make(arguments, size, seed=0)
    neck.compile(fullgraph=True, backend='aot_eager')
    torch.testing.assert_close(train(neck, *tensors), expected)


@pytest.mark.exact
@half_cases
@pytest.mark.parametrize('costs', [{}, {'grad_steps': 1, 'with_cp': True}])
def test_compiles_once(arguments, size, costs):
    torch._dynamo.reset()
    arguments = arguments | costs | {'num_inference_steps': 2}
    neck, student, teacher, _ = make(arguments, size)
    neck.compile(fullgraph=True, backend='eager')
    optimizer = torch.optim.SGD(neck.parameters(), lr=0.01)
    generator = torch.Generator()

    def epoch(steps=3):
        for _ in range(steps):
            drawn = neck.draw(student, teacher, generator)
            optimizer.zero_grad()
            train(neck, student, teacher, drawn)
            optimizer.step()

    epoch(1)
    with torch.compiler.set_stance('fail_on_recompile'):
        epoch()
        neck.eval().train()
        neck.diffusion_loss(
            torch.ones(3, neck.channels, *size), timesteps=torch.arange(3)
        )
        epoch()


@pytest.mark.exact
@half_cases
def test_compiles_under_autocast(arguments, size):
    arguments = arguments | {'num_inference_steps': 2}
    neck, student, teacher, drawn = make(arguments, size)
    torch._dynamo.reset()
    compiled = torch.compile(neck, fullgraph=True, backend='aot_eager')
    with torch.autocast('cpu', torch.bfloat16):
        torch.testing.assert_close(
            compiled(student, teacher, **drawn),
            neck(student, teacher, **drawn),
        )


@pytest.mark.gpu
@all_cases
@all_costs
@pytest.mark.parametrize('autocast', [False, True])
def test_no_synchronisation_with_the_device(arguments, size, costs, autocast):
    neck, student, teacher, _ = make(arguments | costs, size)
    neck, student, teacher = (x.cuda() for x in (neck, student, teacher))
    generator = torch.Generator('cuda').manual_seed(1)

    def step():
        with torch.autocast('cuda', torch.bfloat16, enabled=autocast):
            drawn = neck.draw(student, teacher, generator)
            loss = total(neck(student, teacher, **drawn))
        loss.backward()

    check_on_a_gpu(step)


# Shapes


@pytest.mark.parametrize(
    'arguments, shape',
    [
        ({}, (1, 5, 7)),
        ({}, (1, 1, 2)),
        ({}, (2, 1, 1)),
        ({'latent_channels': 3}, (1, 9, 2)),
        ({'feature': 'vector'}, (2,)),
        ({'feature': 'vector', 'latent_channels': 1}, (3,)),
    ],
)
def test_small_and_odd_shapes(arguments, shape):
    batch_size, *size = shape
    neck, student, teacher, drawn = make(arguments, size, batch_size)
    aligned = neck(student, teacher, **drawn)
    total(aligned).backward()
    assert all(p.grad.isfinite().all() for p in neck.parameters())
    assert all(v.isfinite() for v in aligned.metrics.values())


@pytest.mark.parametrize('channels', [1, 2, 3])
def test_fewer_channels_than_a_reduction(channels):
    neck = DiffKDNeck(channels, channels)
    feature = torch.randn(2, channels, 3, 3)
    assert neck(feature, feature).student.isfinite().all()


@pytest.mark.parametrize(
    'arguments, size', [CASES['vector'], ({}, (1, 1))], ids=['vector', '1x1']
)
def test_a_single_value_per_channel(arguments, size):
    neck, student, teacher, drawn = make(arguments, size, batch_size=1)
    with pytest.raises(ValueError, match=r'\(1, 6.*drop_last=True'):
        neck(student, teacher, **drawn)
    with pytest.raises(ValueError, match=r'\(1, 12.*drop_last=True'):
        neck.encode(teacher)
    assert neck.eval()(student, teacher, **drawn).student.isfinite().all()


def test_maps_and_vectors_mixed_up():
    vectors = torch.ones(2, 6), torch.ones(2, 12)
    with pytest.raises(ValueError, match="student.*set feature='vector'"):
        DiffKDNeck(6, 12)(*vectors)
    with pytest.raises(ValueError, match="teacher.*set feature='vector'"):
        DiffKDNeck(6, 12).encode(vectors[1])
    with pytest.raises(ValueError, match="student.*set feature='map'"):
        DiffKDNeck(6, 12, feature='vector')(
            torch.ones(2, 6, 3, 3), torch.ones(2, 12, 3, 3)
        )


@pytest.mark.parametrize(
    'arguments, message',
    [
        ({'student_channels': None}, 'student_channels=None'),
        ({'teacher_channels': None}, 'teacher_channels=None'),
        ({'student_channels': 0}, 'student_channels=0'),
        ({'latent_channels': 0}, 'latent_channels=0'),
        ({'latent_channels': -8}, 'latent_channels=-8'),
        ({'feature': 'token'}, "feature='token'"),
        ({'num_inference_steps': 0}, 'num_steps=0.*inference steps'),
        ({'num_inference_steps': 501}, 'num_steps=501 inference steps'),
        ({'num_train_timesteps': 400}, 'num_train_timesteps=400'),
        ({'grad_steps': -1}, 'grad_steps=-1'),
        ({'grad_steps': 6}, 'grad_steps=6.*num_steps=5'),
        (
            {'num_inference_steps': 3, 'grad_steps': 4},
            'grad_steps=4.*num_steps=3',
        ),
        ({'num_train_timesteps': 0}, 'num_train_timesteps=0'),
        (
            {'num_train_timesteps': 2000},
            'num_train_timesteps=2000.*1280.*num_timesteps=2000',
        ),
    ],
)
def test_arguments_out_of_range(arguments, message):
    channels = {'student_channels': 6, 'teacher_channels': 12}
    with pytest.raises(ValueError, match=message):
        DiffKDNeck(**(channels | arguments))


# Pictures


@all_cases
def test_trajectory(arguments, size):
    neck, student, teacher, drawn = make(arguments, size)
    neck.eval()
    stages = neck.trajectory(student, teacher, drawn['noise'])
    captions = [caption for caption, _ in stages]
    with_noise = ['with noise'] if neck.noise_matching is not None else []
    steps = ['t = 300', 't = 200', 't = 100', 't = 0', 'denoised']
    assert captions == ['student', *with_noise, *steps, 'teacher']

    tensors = dict(stages)
    assert not any(value.requires_grad for value in tensors.values())
    latent = neck.project(student)
    seen = neck.output_projection
    torch.testing.assert_close(tensors['student'], seen(latent))
    torch.testing.assert_close(tensors['teacher'], neck.encode(teacher)[0])
    torch.testing.assert_close(
        tensors['denoised'], neck(student, teacher, **drawn).student
    )
    if with_noise:
        torch.testing.assert_close(
            tensors['with noise'],
            seen(neck.match_noise(latent, drawn['noise'])[0]),
        )
