from math import sqrt

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mmdiffkd.models.losses import LSHLoss
from mmdiffkd.models.necks import DSKDNeck

CLASSES = 5
LABELS = torch.tensor([2, 0, 4, 2])
SIZES = {'map': (5, 7), 'vector': ()}

both_features = pytest.mark.parametrize('feature', SIZES)


def make(feature='map', student=6, teacher=12, dtype=torch.float32, **changes):
    """A neck, both features, and what else it is called with."""
    size = SIZES[feature]
    neck = DSKDNeck(student, teacher, feature=feature, **changes).to(dtype)
    features = [
        torch.randn(4, c, *size, dtype=dtype, requires_grad=True)
        for c in (student, teacher)
    ]
    head = nn.Linear(teacher, CLASSES, dtype=dtype).requires_grad_(False)
    supply = {
        'teacher_head': head,
        'gt_labels': LABELS,
        'teacher_logits': 3 * torch.randn(4, CLASSES, dtype=dtype),
    }
    others = {name: supply[name] for name in neck.supplied}
    generator = torch.Generator().manual_seed(1)
    return neck, *features, others | neck.draw(*features, generator)


def receivers(neck, loss):
    """Names of the stages whose parameters a loss reaches."""
    neck.zero_grad()
    loss.backward(retain_graph=True)
    return {
        name.split('.')[0]
        for name, parameter in neck.named_parameters()
        if parameter.grad is not None
    }


# The walk


@both_features
@pytest.mark.parametrize('label', ['gt', 'teacher'])
def test_walk_by_the_formulas(feature, label):
    """DDIM with the gradient of a linear classifier, worked out by hand."""
    neck, student, teacher, others = make(
        feature,
        dtype=torch.float64,
        guidance_scale=2.5,
        guidance_label=label,
        num_inference_steps=3,
    )
    neck.eval()
    head = others['teacher_head']
    labels = LABELS if label == 'gt' else others['teacher_logits'].argmax(1)
    alpha_bars = neck.schedule.alpha_bars.double()
    after = {332: alpha_bars[166], 166: alpha_bars[0], 0: torch.tensor(1.0)}
    x = neck.student_projection(student)
    for t, alpha_bar_after in after.items():
        pooled = x.mean(dim=(2, 3)) if feature == 'map' else x
        positions = x[0, 0].numel()
        residual = F.one_hot(labels, CLASSES) - head(pooled).softmax(dim=1)
        gradient = residual @ head.weight / positions
        gradient = gradient.reshape(4, 12, *[1] * (x.dim() - 2))
        alpha_bar = alpha_bars[t].item()
        noise = neck.denoiser(x, t) - 2.5 * sqrt(1 - alpha_bar) * gradient
        clean = (x - sqrt(1 - alpha_bar) * noise) / sqrt(alpha_bar)
        x = clean * alpha_bar_after.sqrt()
        x = x + (1 - alpha_bar_after).sqrt() * noise
    denoised = neck(student, teacher, **others).teacher
    torch.testing.assert_close(denoised, x, rtol=0, atol=1e-12)


@both_features
@pytest.mark.parametrize('mode', [True, False])
def test_scale_0_is_plain_denoising_to_the_last_bit(feature, mode):
    neck, student, teacher, others = make(feature, guidance_scale=0)
    neck.train(mode)
    expected = neck.sampler.sample(
        neck.denoiser, neck.student_projection(student)
    )
    assert torch.equal(neck(student, teacher, **others).teacher, expected)


def test_guidance_is_exact_for_any_classifier():
    neck, student, teacher, others = make('vector', num_inference_steps=1)
    neck.double().eval()
    student, teacher = student.double(), teacher.double()
    others['teacher_head'] = head = nn.Sequential(
        nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, CLASSES)
    ).double()
    latent = neck.project(student).detach().requires_grad_()
    chosen = head(latent).log_softmax(dim=1)[range(4), LABELS].sum()
    (gradient,) = torch.autograd.grad(chosen, latent)
    alpha_bar = neck.schedule.alpha_bar(0)
    noise = neck.denoiser(latent, 0) - sqrt(1 - alpha_bar) * gradient
    expected = (latent - sqrt(1 - alpha_bar) * noise) / sqrt(alpha_bar)
    torch.testing.assert_close(
        neck(student, teacher, **others).teacher,
        expected.detach(),
        rtol=0,
        atol=1e-12,
    )


@both_features
def test_the_classifier_finds_the_label_in_what_it_guided(feature):
    found = []
    for scale in (0, 1, 100):
        torch.manual_seed(0)
        neck, student, teacher, others = make(feature, guidance_scale=scale)
        others |= {'teacher_head': nn.Linear(12, CLASSES), 'gt_labels': LABELS}
        denoised = neck(student, teacher, **others).teacher
        pooled = denoised.flatten(2).mean(2) if denoised.ndim > 2 else denoised
        probabilities = others['teacher_head'](pooled).softmax(dim=1)
        found.append(probabilities[range(4), LABELS].mean().item())
    assert found[0] < found[1] < found[2]


@pytest.mark.parametrize('start', ['feature', 'diffused', 'noise_matching'])
def test_start(start):
    neck, student, teacher, others = make(
        start=start, detach_denoised=False, num_inference_steps=2
    )
    starts = []
    neck.denoiser.register_forward_hook(
        lambda module, inputs, output: starts.append(inputs)
    )
    aligned = neck(student, teacher, **others)
    latent, noise = neck.project(student), others['noise']
    first, timestep = starts[0]
    assert timestep == 250
    if start == 'feature':
        expected = latent
    elif start == 'diffused':
        alpha_bar = neck.schedule.alpha_bar(250)
        expected = sqrt(alpha_bar) * latent + sqrt(1 - alpha_bar) * noise
    else:
        expected, gamma = neck.noise_matching(latent, noise)
        assert aligned.metrics['gamma'] == gamma.mean()
    torch.testing.assert_close(first, expected)
    assert set(aligned.metrics) == (
        {'gamma', 'gamma_std'} if start == 'noise_matching' else set()
    )


def test_result_is_pooled_after_the_walk():
    neck, student, teacher, others = make(pooled=True)
    plain, *_ = make()
    plain.load_state_dict(neck.state_dict())
    aligned = neck(student, teacher, **others)
    maps = plain(student, teacher, **others)
    for pooled, full in zip(aligned[:2], maps[:2]):
        assert pooled.shape == (4, 12)
        torch.testing.assert_close(pooled, full.mean(dim=(2, 3)))


# The student's side


@pytest.mark.parametrize(
    'student, always, projects',
    [(6, False, True), (12, False, False), (12, True, True)],
)
def test_projection(student, always, projects):
    neck, feature, teacher, others = make(
        student=student, always_project=always
    )
    aligned = neck(feature, teacher, **others)
    if projects:
        assert neck.student_projection.weight.shape == (12, student, 1, 1)
        expected = neck.student_projection(feature)
        torch.testing.assert_close(aligned.student, expected)
    else:
        assert aligned.student is feature
    assert not list(neck.output_projection.parameters())


# What learns from what


@both_features
@pytest.mark.parametrize('diffusion_on', ['teacher', 'student'])
def test_where_gradients_flow(feature, diffusion_on):
    neck, student, teacher, others = make(feature, diffusion_on=diffusion_on)
    aligned = neck(student, teacher, **others)
    assert not aligned.teacher.requires_grad
    distance = F.mse_loss(aligned.student, aligned.teacher)
    assert receivers(neck, distance) == {'student_projection'}
    assert student.grad.abs().sum() > 0

    student.grad = None
    loss = aligned.losses['loss_diffusion']
    assert receivers(neck, loss) == {'denoiser'}
    assert all(p.grad is not None for p in neck.denoiser.parameters())
    assert student.grad is None
    assert teacher.grad is None
    reached = {'student_projection', 'denoiser'}
    assert {n.split('.')[0] for n, _ in neck.named_parameters()} == reached


@pytest.mark.parametrize(
    'start, more', [('feature', set()), ('noise_matching', {'noise_matching'})]
)
def test_where_gradients_flow_through_the_walk(start, more):
    neck, student, teacher, others = make(start=start, detach_denoised=False)
    aligned = neck(student, teacher, **others)
    assert receivers(neck, aligned.teacher.square().mean()) == (
        {'student_projection', 'denoiser'} | more
    )
    assert all(p.grad is not None for p in neck.denoiser.parameters())
    assert student.grad.abs().sum() > 0
    assert teacher.grad is None
    reached = {n.split('.')[0] for n, _ in neck.named_parameters()}
    assert reached == {'student_projection', 'denoiser'} | more


def test_detached_or_not_the_result_is_the_same():
    neck, student, teacher, others = make()
    detached = neck(student, teacher, **others)
    neck.detach_denoised = False
    assert torch.equal(neck(student, teacher, **others)[1], detached[1])


def test_the_graph_of_a_detached_walk_is_not_kept():
    neck, student, teacher, others = make()
    calls = []
    neck.denoiser.register_forward_hook(
        lambda module, inputs, output: calls.append(output.requires_grad)
    )
    neck(student, teacher, **others)
    assert calls == [False] * 5 + [True]


def test_gradient_through_the_walk():
    neck, student, teacher, others = make(
        'vector',
        dtype=torch.float64,
        guidance_scale=0,
        detach_denoised=False,
        num_inference_steps=2,
    )
    assert torch.autograd.gradcheck(
        lambda s: neck(s, teacher, **others)[:2], (student,)
    )


@pytest.mark.parametrize('diffusion_on', ['teacher', 'student'])
def test_what_the_denoiser_learns_to_denoise(diffusion_on):
    neck, student, teacher, others = make(diffusion_on=diffusion_on)
    neck.eval()
    target = teacher if diffusion_on == 'teacher' else neck.project(student)
    expected = neck.diffusion_loss(
        target, others['diffusion_noise'], others['timesteps']
    )
    aligned = neck(student, teacher, **others)
    torch.testing.assert_close(aligned.losses['loss_diffusion'], expected)
    neck.diffusion_weight = 2.0
    doubled = neck(student, teacher, **others).losses['loss_diffusion']
    torch.testing.assert_close(doubled, 2 * expected)


def test_statistics_move_in_train_mode_alone():
    neck, student, teacher, others = make()
    norm = neck.denoiser.prediction[-1]
    neck(student, teacher, **others)
    assert norm.num_batches_tracked == 6
    neck.eval()(student, teacher, **others)
    assert norm.num_batches_tracked == 6


# Around it


@pytest.mark.parametrize(
    'arguments, supplied',
    [
        ({}, ('teacher_head', 'gt_labels')),
        ({'guidance_label': 'teacher'}, ('teacher_head', 'teacher_logits')),
        ({'guidance_scale': 0}, ()),
        ({'guidance_scale': 0, 'guidance_label': 'teacher'}, ()),
    ],
)
def test_asks_for_what_it_needs(arguments, supplied):
    neck, student, teacher, others = make(**arguments)
    assert neck.supplied == supplied
    neck(student, teacher, **others)
    for name in supplied:
        with pytest.raises(TypeError, match=f"{name}.*='head.fc'"):
            neck(
                student,
                teacher,
                **{'gt_labels': LABELS, **others, name: None},
            )


def test_no_grad_around_it_changes_nothing():
    neck, student, teacher, others = make()
    neck.eval()
    expected = neck(student, teacher, **others).teacher
    with torch.no_grad():
        assert torch.equal(neck(student, teacher, **others).teacher, expected)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_autocast_is_near_float32(dtype):
    neck, student, teacher, others = make()
    expected = neck(student, teacher, **others).teacher
    with torch.autocast('cpu', dtype):
        denoised = neck(student, teacher, **others).teacher
    assert denoised.dtype == torch.float32
    assert (denoised - expected).norm() < 0.1 * expected.norm()


def test_pictures():
    neck, student, teacher, others = make(start='diffused')
    neck.eval()
    stages = neck.trajectory(student, teacher, others['noise'])
    captions = [caption for caption, _ in stages]
    assert captions[:2] == ['student', 'with noise']
    assert captions[-2:] == ['denoised', 'teacher']


@pytest.mark.parametrize(
    'arguments, message',
    [
        ({'student_channels': None}, 'student_channels=None'),
        ({'diffusion_on': 'both'}, "diffusion_on='both' is not one of"),
        ({'start': 'noise'}, "start='noise' is not one of"),
        ({'guidance_label': 'none'}, "guidance_label='none' is not one of"),
        ({'guidance_scale': -1.0}, 'guidance_scale=-1.0'),
        (
            {'start': 'noise_matching'},
            'no gradient at all. Set detach_denoised=False',
        ),
        ({'num_inference_steps': 0}, 'num_steps=0'),
        ({'feature': 'token'}, "feature='token'"),
    ],
)
def test_arguments_out_of_range(arguments, message):
    channels = {'student_channels': 6, 'teacher_channels': 12}
    with pytest.raises(ValueError, match=message):
        DSKDNeck(**(channels | arguments))


@pytest.mark.parametrize('with_l2', [False, True])
def test_lengths_run_away(with_l2):
    """Why the configs leave out LSH's squared error."""
    neck, student, teacher, drawn = make('vector', guidance_scale=0.0)
    loss = LSHLoss(12, hash_std=0.3, bias='zero', with_l2=with_l2)
    feature = nn.Parameter(student.detach())
    parameters = [feature, *neck.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
    lengths = []
    for _ in range(60):
        aligned = neck(feature, teacher.detach(), **drawn)
        lengths.append(aligned.student.detach().norm())
        total = 6 * loss(*aligned[:2]) + aligned.losses['loss_diffusion']
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    # Not a number is not below anything either.
    assert bool(lengths[-1] < 100 * lengths[0]) != with_l2
