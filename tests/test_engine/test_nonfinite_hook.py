import random
from functools import partial

import numpy as np
import pytest
import tiny_recipes
import torch
from mmengine.hooks import Hook
from mmengine.optim.optimizer import amp_optimizer_wrapper
from mmengine.registry import DefaultScope
from tiny_recipes import make_runner

from mmdiffkd.engine.nonfinite_hook import NonFiniteLoss, replay
from mmdiffkd.registry import MODELS

NAN, INF = float('nan'), float('inf')


@MODELS.register_module(force=True)
class FailingLoss(torch.nn.Module):
    """A distance that is not finite in some calls, counted from 1."""

    def __init__(self, calls=(3,), value=NAN, loss_weight=1.0):
        super().__init__()
        self.bad = calls
        self.value = value
        self.calls = 0

    def forward(self, preds_S, preds_T):
        self.calls += 1
        # A replay of the third call is no fourth.
        count = self.calls if torch.is_grad_enabled() else self.bad[0]
        loss = (preds_S - preds_T).square().mean()
        return loss * self.value if count in self.bad else loss


class Watch(Hook):
    """Weights, and statistics of norms, as each iteration found them."""

    def __init__(self):
        self.weights = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        state = runner.model.state_dict()
        self.weights.append({k: v.clone() for k, v in state.items()})


def recipe(root, hook=None, loss=None, **changes):
    entry = tiny_recipes.feature_entry(loss=loss or dict(type='FailingLoss'))
    config = tiny_recipes.distill_recipe(
        root,
        tiny_recipes.distiller(distill=dict(feature=entry)),
        epochs=3,
        custom_hooks=[dict(type='mmdiffkd.NonFiniteHook', **(hook or {}))],
        **changes,
    )
    config.val_cfg = config.val_dataloader = config.val_evaluator = None
    config.train_cfg.pop('val_interval')
    return config


def same(one, other, but=()):
    return [
        key
        for key in one
        if not torch.equal(one[key], other[key])
        and not key.endswith(('num_batches_tracked', *but))
    ]


def train_and_listen(runner):
    """What was said of skipped iterations."""
    warned = []
    runner.logger.warning = warned.append
    runner.train()
    return [line for line in warned if 'skipped' in line]


STATISTICS = ('running_mean', 'running_var', 'distill.step')


def test_the_run_stops_before_the_step(tmp_path):
    watch = Watch()
    runner = make_runner(recipe(tmp_path), watch)
    with pytest.raises(NonFiniteLoss) as failure:
        runner.train()
    message = str(failure.value)
    # 2 iterations an epoch: it is the first of the second.
    assert 'iteration 3 is not finite' in message
    assert 'distill.feature.loss_kd is nan' in message
    assert 'loss_autoencoder' not in message
    assert 'Inputs of distill.feature: student[0] ' in message
    assert 'teacher[0] ' in message and ' to ' in message
    assert 'The step did not take place' in message
    weights = runner.model.state_dict()
    assert not same(watch.weights[2], weights, STATISTICS)
    assert same(watch.weights[1], watch.weights[2])
    assert {p.name for p in (tmp_path / 'work').glob('*.pth')} == {
        'epoch_1.pth',
        'nonfinite_iter_3.pth',
    }


def test_the_iteration_can_be_computed_again(tmp_path):
    weights = tmp_path / 'teacher.pth'
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        teacher = MODELS.build(tiny_recipes.classifier(6))
    torch.save(teacher.state_dict(), weights)
    seen = []

    def config():
        cfg = recipe(tmp_path, loss=dict(type='FailingLoss', value=INF))
        student = tiny_recipes.classifier(drop_path_rate=0.5)
        student['train_cfg'] = dict(augments=dict(type='Mixup', alpha=0.8))
        cfg.model.student = student
        cfg.model.teacher.checkpoint = str(weights)
        cfg.model.distill.feature.schedule = dict(warmup=4, by_epoch=False)
        return cfg

    class Losses(Hook):
        priority = 'VERY_HIGH'

        def after_train_iter(self, runner, batch_idx, data_batch, outputs):
            seen.append({k: v.item() for k, v in outputs.items()})

    with pytest.raises(NonFiniteLoss, match='loss_kd is inf'):
        make_runner(config(), Losses()).train()
    saved = torch.load(
        tmp_path / 'work/nonfinite_iter_3.pth', weights_only=False
    )
    # Another process: other streams, a model that has not trained.
    torch.manual_seed(8), np.random.seed(8), random.seed(8)
    model = make_runner(config()).model
    model.init_weights()
    losses = replay(model, saved)
    assert {k: v.item() for k, v in losses.items()} == seen[2]


def test_the_task_and_the_first_module_are_named(tmp_path):
    class Spoil(Hook):
        """Lets the student's activations overflow."""

        def before_train_iter(self, runner, batch_idx, data_batch=None):
            norm = runner.model.student.backbone.layer2[0].norm1
            norm.weight.data.fill_(3e38)
            norm.bias.data.fill_(3e38)

    runner = make_runner(recipe(tmp_path, loss=dict(type='MSELoss')), Spoil())
    with pytest.raises(NonFiniteLoss) as failure:
        runner.train()
    message = str(failure.value)
    assert 'iteration 1 is not finite: loss is nan' in message
    assert 'Inputs of the task: data_preprocessor[0] -' in message
    assert 'Inputs of distill.feature' in message
    assert 'The batch as loaded: 0 to 255' in message
    assert 'with such an output: student.backbone.layer2.0.' in message


def test_weights_that_are_not_finite_are_named(tmp_path):
    class Spoil(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            runner.model.student.head.fc.bias.data.fill_(NAN)

    runner = make_runner(recipe(tmp_path, loss=dict(type='MSELoss')), Spoil())
    with pytest.raises(NonFiniteLoss, match='themselves: .*head.fc.bias'):
        runner.train()


def test_a_loss_that_is_finite_again_is_said_to_be(tmp_path):
    runner = make_runner(recipe(tmp_path))
    loss = runner.model.distill.feature.losses[0]
    loss.bad = [3]

    def once(*tensors):
        loss.calls += 1
        return tensors[0].mean() * (NAN if loss.calls == 3 else 1)

    loss.forward = once
    with pytest.raises(NonFiniteLoss, match='Computed once more, it is fin'):
        runner.train()


def test_a_batch_can_be_skipped(tmp_path):
    watch = Watch()
    config = recipe(tmp_path, dict(on_nonfinite='skip'))
    runner = make_runner(config, watch)
    warned = train_and_listen(runner)
    before, after = watch.weights[2:4]
    assert not same(before, after, ('distill.step',))
    assert same(watch.weights[1], before) and same(after, watch.weights[4])
    (line,) = warned
    assert 'Iteration 3 is skipped' in line and 'loss_kd is nan' in line
    assert runner.iter == 6


def test_skipping_has_a_limit(tmp_path):
    loss = dict(type='FailingLoss', calls=(2, 4, 5, 6))
    hook = dict(on_nonfinite='skip', max_skipped=2)
    with pytest.raises(NonFiniteLoss, match='iteration 6'):
        make_runner(recipe(tmp_path, hook, loss)).train()


def test_norms_forget_a_batch_that_is_skipped(tmp_path):
    class Spoil(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            conv = runner.model.student.backbone.conv1
            if runner.iter == 2:
                self.kept = conv.weight.data.clone()
                conv.weight.data.fill_(NAN)
            elif runner.iter == 3:
                conv.weight.data.copy_(self.kept)

    config = recipe(tmp_path, dict(on_nonfinite='skip'), dict(type='MSELoss'))
    runner = make_runner(config, Spoil())
    runner.train()
    for name, tensor in runner.model.state_dict().items():
        assert tensor.isfinite().all(), name


def test_a_buffer_that_is_spoilt_ends_skipping(tmp_path):
    runner = make_runner(recipe(tmp_path, dict(on_nonfinite='skip')))
    runner.model.distill.register_buffer('bank', torch.tensor([NAN]))
    with pytest.raises(NonFiniteLoss, match="buffer 'distill.bank'"):
        runner.train()


@pytest.fixture
def scaled(tmp_path, monkeypatch):
    """A recipe under MMEngine's own loss scaling, which asks for a GPU."""
    scaler = partial(torch.amp.GradScaler, device='cpu')
    monkeypatch.setattr(amp_optimizer_wrapper, 'GradScaler', scaler)
    monkeypatch.setattr(
        amp_optimizer_wrapper, 'is_cuda_available', lambda: True
    )

    def function(**loss):
        config = recipe(
            tmp_path, dict(max_skipped=2), dict(type='FailingLoss', **loss)
        )
        config.optim_wrapper.update(
            type='AmpOptimWrapper', dtype='bfloat16', loss_scale='dynamic'
        )
        return config

    return function


def test_what_the_loss_scaler_handles_is_left_to_it(scaled):
    watch = Watch()
    runner = make_runner(scaled(calls=(2, 3, 5)), watch)
    warned = train_and_listen(runner)
    assert len(warned) == 3 and 'by the loss scaler' in warned[0]
    assert not same(watch.weights[1], watch.weights[3], ('distill.step',))
    assert same(watch.weights[3], watch.weights[4])
    assert runner.optim_wrapper.loss_scaler.get_scale() == 2.0**16 / 2**3


def test_what_the_loss_scaler_cannot_handle_stops_the_run(scaled):
    with pytest.raises(NonFiniteLoss, match='iteration 4'):
        make_runner(scaled(calls=(2, 3, 4))).train()


def test_gradients_that_overflow_are_the_scalers_alone(scaled):
    class Overflow(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            scaler = runner.optim_wrapper.loss_scaler
            if runner.iter in (1, 2):
                scaler._scale.fill_(INF if runner.iter == 1 else 2.0**16)

    watch = Watch()
    runner = make_runner(scaled(calls=()), watch, Overflow())
    assert train_and_listen(runner) == []
    assert not same(watch.weights[1], watch.weights[2], STATISTICS)
    assert same(watch.weights[0], watch.weights[1])


def test_a_plain_recipe_is_watched_as_well(tmp_path):
    model = tiny_recipes.classifier()
    config = tiny_recipes.recipe(
        tmp_path, model, custom_hooks=[dict(type='mmdiffkd.NonFiniteHook')]
    )

    class Spoil(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            runner.model.head.fc.bias.data.fill_(NAN)

    with pytest.raises(NonFiniteLoss, match='Inputs of the task: data'):
        make_runner(config, Spoil()).train()
