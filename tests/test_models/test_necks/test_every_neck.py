"""What holds for every distillation neck, whatever it does."""

import pytest
import tiny_recipes
import torch
from mmpretrain.structures import DataSample
from no_sync import check_on_a_gpu
from torch import nn

from mmdiffkd.models.necks import Aligned
from mmdiffkd.registry import MODELS

CLASSES = 5
MAP = (6, 5, 7), (12, 5, 7)
VECTOR = (6,), (12,)
LEVELS = [(4, 9, 8), (6, 5, 4)], [(8, 9, 8), (12, 5, 4)]


def case(kind, shapes=MAP, lone_image=True, **arguments):
    """A neck, its tensors' shapes and whether it takes a lone image."""
    return {'type': kind, **arguments}, shapes, lone_image


CASES = {
    'DiffKD': case('DiffKDNeck'),
    'DiffKD, autoencoder': case('DiffKDNeck', latent_channels=8),
    'DiffKD, vector': case(
        'DiffKDNeck', VECTOR, lone_image=False, feature='vector'
    ),
    'DiffKD, vector autoencoder': case(
        'DiffKDNeck',
        VECTOR,
        lone_image=False,
        feature='vector',
        latent_channels=8,
    ),
    'DiffKD, standardized': case('DiffKDNeck', standardize_teacher=True),
    'DiffKD, without noise': case('DiffKDNeck', noise_matching=False),
    'DiffKD, classified': case('DiffKDClassifierNeck', num_inference_steps=2),
    'DiffKD, vector classified': case(
        'DiffKDClassifierNeck',
        VECTOR,
        lone_image=False,
        feature='vector',
        num_inference_steps=1,
    ),
    'DSKD': case('DSKDNeck', num_inference_steps=2),
    'DSKD, vector': case(
        'DSKDNeck',
        VECTOR,
        lone_image=False,
        feature='vector',
        num_inference_steps=1,
    ),
    'DSKD, equal channels': case(
        'DSKDNeck', (MAP[1], MAP[1]), num_inference_steps=1
    ),
    'DSKD, diffused and pooled': case(
        'DSKDNeck',
        start='diffused',
        num_inference_steps=2,
        guidance_label='teacher',
        pooled=True,
    ),
    'DSKD, unguided': case(
        'DSKDNeck',
        num_inference_steps=1,
        guidance_scale=0,
        diffusion_on='student',
    ),
    'FitNet': case('FitNetNeck'),
    'FitNet, smaller teacher': case(
        'FitNetNeck',
        ((6, 10, 14), (12, 5, 7)),
        student_size=(10, 14),
        teacher_size=(5, 7),
    ),
    'FitNet, larger teacher': case(
        'FitNetNeck',
        ((6, 5, 7), (12, 10, 14)),
        student_size=(5, 7),
        teacher_size=(10, 14),
    ),
    'MGD': case('MGDNeck'),
    'MGD, channels': case('MGDNeck', mask_on_channel=True),
    'projection': case('ProjectionNeck'),
    'projection, vector': case('ProjectionNeck', VECTOR, feature='vector'),
    'projectors': case('ProjectorEnsembleNeck', VECTOR),
    'projectors, map': case('ProjectorEnsembleNeck', feature='map'),
    'ReviewKD': case('ReviewKDNeck', LEVELS, pooled=False),
    'ReviewKD, pooled': case('ReviewKDNeck', LEVELS, lone_image=False),
    'VID': case('VIDNeck'),
    'VID, larger teacher': case('VIDNeck', ((6, 5, 7), (12, 11, 9))),
}
HALVES = [torch.float16, torch.bfloat16]

every_neck = pytest.mark.parametrize(
    'config, shapes, lone_image', CASES.values(), ids=CASES
)


def make(config, shapes, batch_size=3, dtype=torch.float32):
    """A neck, both sides' tensors, and all else that it is called with."""
    joint = isinstance(shapes[0], list)
    channels = [[s[0] for s in side] if joint else side[0] for side in shapes]
    neck = MODELS.build(
        {
            **config,
            'student_channels': channels[0],
            'teacher_channels': channels[1],
        }
    ).to(dtype)

    def tensors(side):
        if joint:
            return [
                torch.randn(batch_size, *s, dtype=dtype, requires_grad=True)
                for s in side
            ]
        return torch.randn(batch_size, *side, dtype=dtype, requires_grad=True)

    student, teacher = map(tensors, shapes)
    head = nn.Linear(12, CLASSES, dtype=dtype).requires_grad_(False)
    supply = {
        'teacher_head': head,
        'gt_labels': torch.arange(batch_size) % CLASSES,
        'teacher_logits': torch.randn(batch_size, CLASSES, dtype=dtype),
    }
    generator = torch.Generator().manual_seed(1)
    others = neck.draw(student, teacher, generator)
    others |= {name: supply[name] for name in neck.asks_for}
    return neck, student, teacher, others


def flat(tensors):
    return [tensors] if isinstance(tensors, torch.Tensor) else list(tensors)


def total(aligned):
    pairs = zip(flat(aligned.student), flat(aligned.teacher))
    distances = [(s.float() - t.float()).square().mean() for s, t in pairs]
    return sum(distances) + sum(aligned.losses.values())


def check_gradients(neck, student, loss):
    """They are finite, as the loss is."""
    assert loss.isfinite()
    loss.backward()
    assert all(p.grad.isfinite().all() for p in neck.parameters())
    assert all(s.grad.isfinite().all() for s in flat(student))


@every_neck
def test_aligns(config, shapes, lone_image):
    neck, student, teacher, others = make(config, shapes)
    aligned = neck(student, teacher, **others)
    assert isinstance(aligned, Aligned)
    students, teachers = flat(aligned.student), flat(aligned.teacher)
    assert len(students) == len(teachers) >= len(flat(student))
    for ours, theirs in zip(students, teachers):
        assert ours.shape == theirs.shape
        assert not theirs.requires_grad
    assert all(key.startswith('loss_') for key in aligned.losses)
    assert not any('loss' in key for key in aligned.metrics)


@every_neck
def test_every_parameter_is_trained(config, shapes, lone_image):
    neck, student, teacher, others = make(config, shapes)
    total(neck(student, teacher, **others)).backward()
    assert all(p.grad is not None for p in neck.parameters())
    for tensor in flat(student):
        assert tensor.grad.abs().sum() > 0
    assert all(tensor.grad is None for tensor in flat(teacher))


@every_neck
def test_keeps_nothing_of_the_teacher(config, shapes, lone_image):
    neck, student, teacher, others = make(config, shapes)
    head = others.get('teacher_head')
    neck(student, teacher, **others)
    assert head not in set(neck.modules())
    known = set(map(id, neck.parameters())) | set(map(id, neck.buffers()))
    assert head is None or known.isdisjoint(map(id, head.parameters()))


@every_neck
def test_no_random_number_is_drawn_behind_the_back(config, shapes, lone_image):
    neck, student, teacher, others = make(config, shapes)
    state = torch.get_rng_state()
    neck(student, teacher, **others)
    assert torch.equal(torch.get_rng_state(), state)


@every_neck
@pytest.mark.parametrize('dtype', HALVES)
def test_finite_under_autocast(config, shapes, lone_image, dtype):
    neck, student, teacher, others = make(config, shapes)
    with torch.autocast('cpu', dtype):
        aligned = neck(student, teacher, **others)
        loss = total(aligned)
    assert loss.dtype == torch.float32
    assert all(v.dtype == torch.float32 for v in aligned.losses.values())
    check_gradients(neck, student, loss)


@every_neck
@pytest.mark.parametrize('dtype', [torch.float64, *HALVES])
def test_trains_in_another_dtype(config, shapes, lone_image, dtype):
    neck, student, teacher, others = make(config, shapes, dtype=dtype)
    optimizer = torch.optim.SGD(neck.parameters(), lr=0.01)
    better = torch.promote_types(dtype, torch.float32)
    # The mean of projectors is taken in float32.
    kept = better if 'Ensemble' in config['type'] else dtype
    for _ in range(3):
        optimizer.zero_grad()
        aligned = neck(student, teacher, **others)
        assert all(s.dtype == kept for s in flat(aligned.student))
        assert all(v.dtype == better for v in aligned.losses.values())
        check_gradients(neck, student, total(aligned))
        optimizer.step()
    assert all(p.isfinite().all() for p in neck.parameters())
    for name in {'noise', 'diffusion_noise', 'mask'} & others.keys():
        assert others[name].dtype == dtype


@every_neck
def test_a_lone_image(config, shapes, lone_image):
    neck, student, teacher, others = make(config, shapes, batch_size=1)
    if not lone_image:
        with pytest.raises(ValueError, match='drop_last=True'):
            neck(student, teacher, **others)
        neck.eval()
    check_gradients(neck, student, total(neck(student, teacher, **others)))


@every_neck
def test_all_zero_features(config, shapes, lone_image):
    neck, student, teacher, others = make(config, shapes)
    for tensor in (*flat(student), *flat(teacher)):
        tensor.data.zero_()
    check_gradients(neck, student, total(neck(student, teacher, **others)))


@every_neck
def test_runs_on_meta(config, shapes, lone_image):
    neck, student, teacher, others = make(config, shapes)
    expected = neck(student, teacher, **others)

    def to_meta(value):
        if isinstance(value, list):
            return [v.to('meta') for v in value]
        return value.to('meta')

    aligned = neck.to('meta')(
        *map(to_meta, (student, teacher)),
        **{name: to_meta(value) for name, value in others.items()},
    )
    for ours, theirs in zip(flat(aligned.student), flat(expected.student)):
        assert ours.shape == theirs.shape


@pytest.mark.exact
@every_neck
def test_compiles_without_a_graph_break(config, shapes, lone_image):
    torch._dynamo.reset()
    results = []
    for compiled in (False, True):
        torch.manual_seed(0)
        neck, student, teacher, others = make(config, shapes, batch_size=8)
        if compiled:
            neck.compile(fullgraph=True, backend='eager')
        aligned = neck(student, teacher, **others)
        total(aligned).backward()
        gradients = {n: p.grad for n, p in neck.named_parameters()}
        inputs = [s.grad for s in flat(student)]
        results.append(
            (aligned, inputs, gradients, dict(neck.named_buffers()))
        )
    torch.testing.assert_close(*results)


SMALL = {
    'FitNet': (
        dict(type='FitNetNeck', student_size=(4, 4), teacher_size=(2, 2)),
        ((2, 4, 4), (3, 2, 2)),
    ),
    'MGD': (dict(type='MGDNeck'), ((2, 3, 2), (3, 3, 2))),
    'projectors': (dict(type='ProjectorEnsembleNeck'), ((3,), (2,))),
    'ReviewKD': (
        dict(type='ReviewKDNeck'),
        ([(2, 4, 4), (3, 2, 2)], [(2, 3, 3), (2, 2, 2)]),
    ),
    'VID': (dict(type='VIDNeck'), ((2, 4, 4), (3, 2, 2))),
}


@pytest.mark.parametrize('config, shapes', SMALL.values(), ids=SMALL)
def test_gradient(config, shapes):
    neck, student, teacher, others = make(
        config, shapes, batch_size=2, dtype=torch.float64
    )

    def function(*tensors):
        given = list(tensors) if isinstance(student, list) else tensors[0]
        return tuple(flat(neck(given, teacher, **others).student))

    assert torch.autograd.gradcheck(function, flat(student))


@pytest.mark.gpu
@every_neck
def test_no_synchronisation_with_the_device(config, shapes, lone_image):
    neck, student, teacher, others = make(config, shapes)
    neck = neck.cuda()
    student, teacher = (
        [t.detach().cuda() for t in side]
        if isinstance(side, list)
        else side.detach().cuda()
        for side in (student, teacher)
    )
    others = {name: value.cuda() for name, value in others.items()}

    def step():
        total(neck(student, teacher, **others)).backward()

    check_on_a_gpu(step)


# In a distiller

ENTRIES = {
    'DSKD': dict(neck=dict(type='DSKDNeck'), teacher_head='head.fc'),
    'DSKD, pooled feature': dict(
        at='neck[-1]',
        neck=dict(type='DSKDNeck', feature='vector', guidance_label='teacher'),
        teacher_head='head.fc',
    ),
    'DSKD, unguided': dict(neck=dict(type='DSKDNeck', guidance_scale=0)),
    'DDKD, classified': dict(
        neck=dict(type='DiffKDClassifierNeck'),
        teacher_head='head.fc',
    ),
    'FitNet': dict(neck=dict(type='FitNetNeck')),
    'FitNet, other size': dict(
        student_at='backbone[-1]',
        teacher_at='backbone[0]',
        neck=dict(type='FitNetNeck'),
    ),
    'MGD': dict(neck=dict(type='MGDNeck')),
    'PEFD': dict(at='neck[-1]', neck=dict(type='ProjectorEnsembleNeck')),
    'ReviewKD': dict(at='backbone', neck=dict(type='ReviewKDNeck')),
    'ReviewKD, tapped': dict(
        at=['backbone', 'neck[-1]'],
        neck=dict(type='ReviewKDNeck', pooled=False),
    ),
    'VID': dict(neck=dict(type='VIDNeck')),
    'VID, other size': dict(
        student_at='backbone[0]',
        teacher_at='backbone[-1]',
        neck=dict(type='VIDNeck'),
    ),
}


@pytest.mark.parametrize('entry', ENTRIES.values(), ids=ENTRIES)
def test_in_a_distiller(ready, entry):
    entry = {'loss': dict(type='MSELoss'), **entry}
    if 'student_at' not in entry:
        entry = {'at': 'backbone[-1]', **entry}
    distiller = ready(tiny_recipes.distiller(distill=dict(entry=entry)))
    images = torch.randn(4, 3, tiny_recipes.SIZE, tiny_recipes.SIZE)
    samples = [DataSample().set_gt_label(label % 2) for label in range(4)]
    losses = distiller(images, samples, mode='loss')
    terms = {k: v for k, v in losses.items() if k.startswith('distill.')}
    sum(terms.values()).backward()
    assert all(v.isfinite() for v in terms.values())
    assert all(p.grad is not None for p in distiller.distill.parameters()), [
        n for n, p in distiller.distill.named_parameters() if p.grad is None
    ]
    assert all(p.grad is None for p in distiller.teacher.network.parameters())
    assert any(
        p.grad is not None and p.grad.abs().sum() > 0
        for p in distiller.student.backbone.parameters()
    )
