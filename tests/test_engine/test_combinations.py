"""What people switch on beside distillation, alone and in pairs.

Every run is one of two iterations by the real runner. Some switches must
change nothing (EMA, activation checkpointing, compilation): a run with them is
the run without. Accumulation and mixed precision are compared with the plain
run as far as they have to be like it.
"""

from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import pytest
import tiny_recipes
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.optim.optimizer import amp_optimizer_wrapper
from mmengine.registry import OPTIM_WRAPPERS
from mmengine.runner import Runner
from tiny_recipes import DISTILL_LINES
from torch import Tensor

RATE, MOMENTUM = 0.05, 0.3
PARTS = ('kd', 'diffusion', 'autoencoder')


@OPTIM_WRAPPERS.register_module()
class CpuAmpOptimWrapper(AmpOptimWrapper):
    """MMEngine's on a CPU, where it refuses to run and knows no float16."""

    @contextmanager
    def optim_context(self, model):
        with (
            OptimWrapper.optim_context(self, model),
            torch.autocast('cpu', self.cast_dtype),
        ):
            yield


def optimizer(**settings):
    return dict(optim_wrapper=settings)


def amp(dtype, device='cpu', **scaling):
    name = 'CpuAmpOptimWrapper' if device == 'cpu' else 'AmpOptimWrapper'
    return optimizer(type=name, dtype=dtype, loss_scale=scaling)


def compiled(backend):
    return dict(compile=dict(backend=backend))


BFLOAT16 = amp('bfloat16', enabled=False)
FLOAT16 = amp('float16', init_scale=1024.0)
ACCUMULATED = optimizer(accumulative_counts=2)
CLIPPED = optimizer(clip_grad=dict(max_norm=0.25))
EMA = dict(custom_hooks=[dict(type='EMAHook', momentum=MOMENTUM)])
STUDENT = dict(model=dict(student=dict(backbone=dict(with_cp=True))))
DENOISER = dict(
    model=dict(distill=dict(feature=dict(neck=dict(with_cp=True))))
)


@dataclass
class Record:
    """A run of two iterations."""

    #: The task's and those of :data:`PARTS`, by iteration.
    losses: Tensor
    #: Of student and necks, before training and after every iteration.
    weights: list[dict[str, Tensor]]
    #: As they have come together after every backward pass.
    gradients: list[dict[str, Tensor]]
    #: The averaged weights, with EMA.
    averaged: dict[str, Tensor] | None
    #: The factor of the loss at the end, with loss scaling.
    scale: float | None


def copied(pairs):
    return {name: tensor.detach().cpu().clone() for name, tensor in pairs}


class Recorder(Hook):
    """Looks at a runner before any other hook does."""

    priority = 'VERY_HIGH'

    def before_train(self, runner):
        self.losses, self.gradients = [], []
        self.weights = [copied(runner.model.named_parameters())]
        for name, parameter in runner.model.named_parameters():
            parameter.register_post_accumulate_grad_hook(
                partial(self.keep_gradient, name)
            )

    def before_train_iter(self, runner, *args, **kwargs):
        self.gradients.append({})

    @torch.compiler.disable
    def keep_gradient(self, name, parameter):
        self.gradients[-1][name] = parameter.grad.cpu().clone()

    def after_train_iter(self, runner, batch_idx, data_batch, outputs):
        names = ('loss', *(f'distill.feature.loss_{p}' for p in PARTS))
        # An entry that is off has no parts.
        values = [float(outputs.get(name, 0)) for name in names]
        self.losses.append(torch.tensor(values))
        self.weights.append(copied(runner.model.named_parameters()))


def run_two_iterations(folder, number, switches) -> Record:
    config = tiny_recipes.recipe(
        folder, tiny_recipes.distiller(), epochs=1, **DISTILL_LINES
    )
    config.work_dir = str(folder / str(number))
    config.experiment_name = config.work_dir
    config.optim_wrapper.optimizer = dict(type='SGD', lr=RATE)
    config.val_dataloader = config.val_cfg = config.val_evaluator = None
    config.default_hooks.checkpoint.interval = -1
    for switch in switches:
        config.merge_from_dict(Config(switch).to_dict())
    torch._dynamo.reset()
    with pytest.MonkeyPatch.context() as patch:
        # Laying out the config's text takes longer than the training.
        patch.setattr(Config, 'pretty_text', '')
        if config.optim_wrapper.get('type') == 'CpuAmpOptimWrapper':
            scaler = partial(torch.amp.GradScaler, device='cpu')
            patch.setattr(amp_optimizer_wrapper, 'GradScaler', scaler)
            patch.setattr(
                amp_optimizer_wrapper, 'is_cuda_available', lambda: True
            )
        runner = Runner.from_cfg(config)
        recorder = Recorder()
        runner.register_hook(recorder)
        runner.train()
    assert runner.iter == 2
    averages = [
        copied(hook.ema_model.module.named_parameters())
        for hook in runner.hooks
        if hasattr(hook, 'ema_model')
    ]
    scaler = getattr(runner.optim_wrapper, 'loss_scaler', None)
    return Record(
        torch.stack(recorder.losses),
        recorder.weights,
        recorder.gradients,
        averages[0] if averages else None,
        scaler.get_scale() if scaler else None,
    )


@pytest.fixture(scope='module')
def train(tmp_path_factory):
    """Train with some switches on; each set of them once."""
    folder, records = tmp_path_factory.mktemp('runs'), {}

    def function(*switches) -> Record:
        key = repr(switches)
        if key not in records:
            records[key] = run_two_iterations(folder, len(records), switches)
        return records[key]

    return function


def distance(ours, theirs):
    """Between two sets of weights, all together."""
    return torch.stack([torch.dist(ours[k], theirs[k]) for k in theirs]).norm()


def check_same(record, expected, rtol=0.0, atol=0.0):
    """Losses, and weights after every iteration."""
    close = partial(torch.testing.assert_close, rtol=rtol, atol=atol)
    close(record.losses, expected.losses)
    assert distance(expected.weights[-1], expected.weights[0]) > 0.01
    for ours, theirs in zip(record.weights, expected.weights, strict=True):
        close(ours, theirs)


def check_near(record, expected, dtype):
    """Losses within the rounding, and weights on nearly the same way.

    A ReLU that rounding flips moves the gradient of so small a network by
    some per cent, however fine the rounding.
    """
    unit = torch.finfo(dtype).eps
    torch.testing.assert_close(
        record.losses, expected.losses, rtol=unit, atol=0
    )
    for ours, theirs in zip(record.weights, expected.weights, strict=True):
        way = distance(theirs, expected.weights[0])
        assert distance(ours, theirs) <= 0.2 * way


def sets(*switches):
    """Parameters of a test: sets of switches by their names."""
    return pytest.mark.parametrize(
        'names', switches, ids=lambda names: '-'.join(names.split()) or 'plain'
    )


def chosen(names):
    return [globals()[name] for name in names.split()]


# What changes nothing.


@sets('', 'ACCUMULATED', 'BFLOAT16', 'FLOAT16', 'FLOAT16 ACCUMULATED CLIPPED')
def test_ema(train, names):
    expected = train(*chosen(names))
    record = train(*chosen(names), EMA)
    check_same(record, expected)
    first, second = record.weights[1:]
    for name, average in record.averaged.items():
        torch.testing.assert_close(
            average, first[name].lerp(second[name], MOMENTUM)
        )


BOTH = 'STUDENT DENOISER'


@pytest.mark.parametrize(
    ('names', 'parts'),
    [
        ('', 'STUDENT'),
        ('', 'DENOISER'),
        *((names, BOTH) for names in ('', 'ACCUMULATED', 'EMA')),
        *((names, BOTH) for names in ('BFLOAT16', 'FLOAT16 ACCUMULATED')),
    ],
)
def test_activation_checkpointing(train, names, parts):
    expected = train(*chosen(names))
    record = train(*chosen(names), *chosen(parts))
    check_same(record, expected)


# What changes something.


@sets('', 'CLIPPED')
def test_accumulation(train, names):
    """The mean of two gradients, both taken where the weights were."""
    still = train(optimizer(optimizer=dict(lr=0.0)))
    record = train(ACCUMULATED, *chosen(names))
    assert torch.equal(record.losses, still.losses)
    before, between, after = record.weights
    torch.testing.assert_close(between, before, rtol=0, atol=0)
    first, second = still.gradients
    mean = {name: (first[name] + second[name]) / 2 for name in first}
    torch.testing.assert_close(record.gradients[1], mean)
    for part in ('student', 'distill'):
        own = [name for name in mean if name.startswith(part)]
        norm = torch.stack([mean[name].norm() for name in own]).norm()
        limit = 0.25 / norm if names else torch.tensor(1.0)
        assert not names or limit < 1
        for name in own:
            torch.testing.assert_close(
                after[name], before[name] - RATE * limit * mean[name]
            )


@sets('', 'ACCUMULATED', 'CLIPPED', 'ACCUMULATED CLIPPED')
@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
def test_mixed_precision(train, names, dtype):
    half = BFLOAT16 if dtype == 'bfloat16' else FLOAT16
    expected, record = train(*chosen(names)), train(*chosen(names), half)
    check_near(record, expected, getattr(torch, dtype))
    assert not torch.equal(record.losses, expected.losses)
    assert record.scale == (1024 if dtype == 'float16' else 1)


@sets('', 'CLIPPED')
def test_overflow_is_left_to_the_scaler(train, names):
    record = train(amp('float16', init_scale=2.0**120), *chosen(names))
    assert record.losses.isfinite().all()
    assert not all(g.isfinite().all() for g in record.gradients[0].values())
    check_unmoved(record, record.weights[0])
    assert record.scale == 2.0**118


def check_unmoved(record, names):
    for weights in record.weights[1:]:
        for name in names:
            assert torch.equal(weights[name], record.weights[0][name])


@sets('ACCUMULATED', 'FLOAT16', 'FLOAT16 ACCUMULATED CLIPPED')
def test_entry_that_is_off_stays_where_it_is(train, names):
    off = dict(model=dict(distill=dict(feature=dict(weight=0.0))))
    decay = optimizer(optimizer=dict(weight_decay=0.1))
    record = train(off, decay, *chosen(names))
    necks = [n for n in record.weights[0] if n.startswith('distill')]
    check_unmoved(record, necks)
    assert distance(record.weights[-1], record.weights[0]) > 0


@pytest.mark.gpu
@sets('', 'ACCUMULATED', 'CLIPPED', 'EMA', 'STUDENT DENOISER')
@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
def test_mixed_precision_on_a_gpu(train, names, dtype):
    scaling = dict(enabled=False)
    if dtype == 'float16':
        scaling = dict(init_scale=1024.0)
    half = amp(dtype, 'cuda', **scaling)
    expected, record = train(*chosen(names)), train(*chosen(names), half)
    check_near(record, expected, getattr(torch, dtype))


# Compilation, which takes its time.

TOLERANCE = dict(rtol=1e-5, atol=1e-6)


@pytest.mark.exact
@pytest.mark.slow
def test_compilation(train):
    check_same(train(compiled('eager')), train(), **TOLERANCE)


@pytest.mark.exact
@pytest.mark.slow
@sets('', 'STUDENT', 'DENOISER', 'EMA ACCUMULATED CLIPPED')
@pytest.mark.parametrize('backend', ['aot_eager', 'inductor'])
def test_compilation_with_others(train, names, backend):
    expected = train(*chosen(names))
    record = train(*chosen(names), compiled(backend))
    check_same(record, expected, **TOLERANCE)


@pytest.mark.exact
@pytest.mark.slow
@sets('BFLOAT16', 'FLOAT16 ACCUMULATED CLIPPED')
@pytest.mark.parametrize('backend', ['aot_eager', 'inductor'])
def test_compilation_in_mixed_precision(train, names, backend):
    record = train(*chosen(names), compiled(backend))
    dtype = names.partition(' ')[0].lower()
    check_near(record, train(*chosen(names)), getattr(torch, dtype))
