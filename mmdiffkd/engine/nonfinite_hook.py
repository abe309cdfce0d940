"""Stopping, or going on, where a loss is not finite."""

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, nullcontext
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import NoReturn

import torch
from mmengine.dist import all_reduce, barrier, get_rank, is_distributed
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from mmdiffkd.registry import HOOKS
from mmdiffkd.utils import DISTILL_PREFIX
from mmdiffkd.utils.randomness import random_state, set_random_state


class NonFiniteLoss(RuntimeError):
    """A loss is infinite or not a number."""


@HOOKS.register_module()
class NonFiniteHook(Hook):
    """Looks at the loss between the backward pass and the optimizer's step.

    Where it is not finite, gradients are dropped, so that the step changes
    nothing. Then the run stops, with the iteration, the terms of the loss
    that are not finite, the ranges of what they were computed from, and the
    first module whose output is not finite; batch, weights and random state
    go to ``nonfinite_iter_<N>.pth`` in the work directory, for
    :func:`replay`. Or, on request, the run goes on with the next batch.

    All processes stop or go on together. Under loss scaling (fp16), the
    scaler skips such a step and lowers its scale, which is left to it
    ``max_skipped`` times in a row; gradients that overflow while the loss is
    finite are its business alone.

    The price is one number read from the device in each iteration, after the
    backward pass, where MMEngine is about to read the losses anyway. With an
    optimizer wrapper of another kind than MMEngine's ``OptimWrapper``
    (DeepSpeed's, or several in a dict) the loss is seen after the step only.

    Args:
        on_nonfinite (str): ``'stop'`` or ``'skip'``. Defaults to ``'stop'``.
        max_skipped (int): How many iterations may be skipped in a row.
            Defaults to 10.
    """

    # Before the hooks that save and average weights.
    priority = 'HIGH'

    def __init__(
        self, on_nonfinite: str = 'stop', max_skipped: int = 10
    ) -> None:
        if on_nonfinite not in ('stop', 'skip'):
            raise ValueError(
                f"`on_nonfinite` is {on_nonfinite!r}. Use 'stop' or 'skip'."
            )
        if not isinstance(max_skipped, int) or max_skipped < 1:
            raise ValueError(
                f'`max_skipped` is {max_skipped!r}. Use an integer of 1 or '
                'more.'
            )
        self.on_nonfinite = on_nonfinite
        self.max_skipped = max_skipped
        self._guarded = False
        self._scaled = False
        self._failed = self._failed_here = False
        self._in_a_row = 0
        self._random_state: dict = {}
        self._samples: list[tuple[object, dict]] = []
        self._statistics: list[Tensor] = []
        self._kept: list[Tensor] = []

    def before_train(self, runner: Runner) -> None:
        """Watch the optimizer wrapper.

        Raises:
            ValueError: If steps cannot be skipped.
        """
        wrapper = runner.optim_wrapper
        self._guarded = isinstance(wrapper, OptimWrapper) and not isinstance(
            wrapper, OptimWrapperDict
        )
        skips = self.on_nonfinite == 'skip'
        if not self._guarded:
            if skips:
                raise ValueError(
                    "`on_nonfinite` is 'skip', but a "
                    f'{type(wrapper).__name__} steps by itself. Use '
                    "'stop'."
                )
            return
        scaler = getattr(wrapper, 'loss_scaler', None)
        self._scaled = scaler is not None and scaler.is_enabled()
        wrapper.backward = partial(self._backward, wrapper, wrapper.backward)
        if skips or self._scaled:
            self._statistics = [
                statistic
                for module in runner.model.modules()
                if isinstance(module, _NormBase)
                for statistic in (module.running_mean, module.running_var)
                if statistic is not None
            ]
            self._kept = [s.clone() for s in self._statistics]

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch=None
    ) -> None:
        """Keep what the forward pass will change."""
        self._random_state = random_state()
        # Mixup and the like write mixed labels into what was loaded.
        samples = isinstance(data_batch, Mapping) and data_batch.get(
            'data_samples'
        )
        self._samples = [
            (sample, vars(sample).copy())
            for sample in samples or ()
            if isinstance(sample, BaseDataElement)
        ]
        self._failed = self._failed_here = False
        if self._statistics:
            torch._foreach_copy_(self._kept, self._statistics)

    @torch.compiler.disable
    def _backward(
        self, wrapper: OptimWrapper, backward, loss: Tensor, **kwargs
    ) -> None:
        backward(loss, **kwargs)
        self._judge(loss)
        if self._failed and not self._scaled:
            wrapper.zero_grad()

    def _judge(self, loss: Tensor) -> None:
        """See whether a loss is finite, here and in all processes."""
        finite = torch.isfinite(loss.detach()).all()
        everywhere = finite.float()
        all_reduce(everywhere, 'mean')
        if everywhere < 1:
            self._failed = True
            self._failed_here |= not bool(finite)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch=None, outputs=None
    ) -> None:
        """Stop, or count.

        Raises:
            NonFiniteLoss: If the loss was not finite, and stopping is asked
                for or has become so.
        """
        terms = {k: v for k, v in (outputs or {}).items() if 'loss' in k}
        if not self._guarded and terms:
            self._judge(sum(terms.values()))
        if not self._failed:
            self._in_a_row = 0
            return
        self._in_a_row += 1
        found = 'another process has a loss that is not finite'
        if self._failed_here:
            found = _describe(terms) or 'the sum of the losses is not finite'
        tolerant = self.on_nonfinite == 'skip' or self._scaled
        if not tolerant or self._in_a_row > self.max_skipped:
            self._stop(runner, data_batch, found)
        who = 'the loss scaler' if self._scaled else 'on_nonfinite'
        runner.logger.warning(
            f'Iteration {runner.iter + 1} is skipped by {who}: {found} '
            f'({self._in_a_row} in a row, at most {self.max_skipped}).'
        )
        if self._statistics:
            torch._foreach_copy_(self._statistics, self._kept)
        self._check_buffers(runner)

    def _check_buffers(self, runner: Runner) -> None:
        name = _first_nonfinite(runner.model.named_buffers())
        if name is not None:
            raise NonFiniteLoss(
                f'iteration {runner.iter + 1} cannot be skipped: its values '
                f'have got into the buffer {name!r}, which is not finite '
                'now. Resume from the last checkpoint, with '
                "on_nonfinite='stop' to see where they come from."
            )

    def _stop(self, runner: Runner, batch: object, found: str) -> NoReturn:
        model = runner.model
        model = model.module if is_model_wrapper(model) else model
        number = runner.iter + 1
        lines = [f'the loss of iteration {number} is not finite: {found}.']
        # Every process computes, since networks may exchange statistics.
        context = getattr(runner.optim_wrapper, 'optim_context', nullcontext)
        try:
            for sample, fields in self._samples:
                for name in vars(sample).keys() - fields.keys():
                    delattr(sample, name)
                vars(sample).update(fields)
            saved = _snapshot(runner, model, batch, self._random_state)
            if self._failed_here:
                lines.append(self._save(runner, saved))
            with context(runner.model):
                report = _diagnose(model, saved)
            if self._failed_here:
                lines += report
        except Exception as error:
            lines.append(f'Computing it once more failed: {error!r}.')
        lines.append(
            'The step did not take place.'
            if self._guarded
            else 'The step has taken place: the weights are spoilt.'
        )
        # Nobody is to be killed while another still writes.
        barrier()
        raise NonFiniteLoss('\n'.join(lines))

    @staticmethod
    def _save(runner: Runner, saved: dict) -> str:
        rank = f'_rank{get_rank()}' if is_distributed() else ''
        name = f'nonfinite_iter_{saved["iter"]}{rank}.pth'
        path = Path(runner.work_dir) / name
        try:
            torch.save(saved, path)
        except (OSError, RuntimeError) as error:
            return f'Batch and weights could not be saved: {error}.'
        return (
            f'Batch, weights and random state are in {path}, for '
            'mmdiffkd.engine.nonfinite_hook.replay.'
        )


def replay(model: nn.Module, saved: Mapping) -> dict:
    """Compute the losses of a saved iteration once more.

    Args:
        model (nn.Module): The run's model, not wrapped.
        saved (Mapping): What ``nonfinite_iter_<N>.pth`` holds.

    Returns:
        dict: Losses by name, as the model's forward pass returns them.
    """
    model.load_state_dict(saved['state_dict'])
    if saved['noise'] is not None:
        model.noise_stream = saved['noise']
        model.set_progress(*saved['progress'])
    set_random_state(saved['random_state'])
    model.train()
    with torch.no_grad():
        data = model.data_preprocessor(deepcopy(saved['batch']), True)
        return model._run_forward(data, mode='loss')


def _snapshot(
    runner: Runner, model: nn.Module, batch: object, state: Mapping
) -> dict:
    weights = {k: v.cpu().clone() for k, v in model.state_dict().items()}
    noise = None
    step = f'{DISTILL_PREFIX}step'
    if step in weights:
        # The forward pass has counted already.
        weights[step] -= 1
        noise = model.noise_stream
    return {
        'iter': runner.iter + 1,
        'progress': (runner.epoch, runner.iter),
        'batch': batch,
        'state_dict': weights,
        'random_state': state,
        'noise': noise,
    }


def _diagnose(model: nn.Module, saved: Mapping) -> list[str]:
    """Compute the losses again and look at everything on the way."""
    first: list[str] = []
    ranges: dict[str, list[str]] = {'': []}

    def look(name: str, module: nn.Module, inputs: tuple, output) -> None:
        bad = any(not bool(t.isfinite().all()) for t in _tensors(output))
        if bad and not first:
            first.append(name)

    def note(entry: str, label: str, values: object) -> None:
        for i, tensor in enumerate(_tensors(values)):
            ranges.setdefault(entry, []).append(
                f'{label}[{i}] {_range(tensor)}'
            )

    with ExitStack() as hooks:

        def add(handle) -> None:
            hooks.callback(handle.remove)

        for name, module in model.named_modules():
            add(module.register_forward_hook(partial(look, name)))
        student = getattr(model, 'student', model)
        for name, module in student.named_children():
            add(
                module.register_forward_hook(
                    lambda m, x, y, name=name: note('', name, y)
                )
            )
        for name, module in getattr(model, 'distill', {}).items():

            def entry(module, inputs, name=name) -> None:
                note(name, 'student', inputs[0])
                note(name, 'teacher', inputs[1])

            add(module.register_forward_pre_hook(entry))
        losses = replay(model, saved)
    lines = []
    bad = [
        key
        for key, value in losses.items()
        if not all(bool(t.isfinite().all()) for t in _tensors(value))
    ]
    if not bad:
        lines.append(
            'Computed once more, it is finite: something in it is not '
            'deterministic, or memory is faulty.'
        )
    # A task's losses have the student's own names.
    for entry in dict.fromkeys(
        match[1] if (match := re.match(r'distill\.(\w+)\.', key)) else ''
        for key in bad
    ):
        what = f'distill.{entry}' if entry else 'the task'
        lines.append(f'Inputs of {what}: ' + '; '.join(ranges[entry]) + '.')
    lines.append(f'The batch as loaded: {_range(*_tensors(saved["batch"]))}.')
    weights = _first_nonfinite(model.named_parameters())
    if weights is not None:
        lines.append(f'Weights that are not finite themselves: {weights}.')
    elif first:
        lines.append(f'First module with such an output: {first[0]}.')
    return lines


def _tensors(value: object) -> Iterator[Tensor]:
    """The tensors of floats in nested lists, tuples and dicts."""
    if isinstance(value, Tensor):
        if value.is_floating_point() or value.dtype is torch.uint8:
            yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)


def _range(*tensors: Tensor) -> str:
    flat = torch.cat([t.detach().flatten().float().cpu() for t in tensors])
    finite = flat[flat.isfinite()]
    text = 'nothing finite'
    if finite.numel():
        text = f'{finite.min():.4g} to {finite.max():.4g}'
    if finite.numel() < flat.numel():
        text += f', {flat.numel() - finite.numel()} of {flat.numel()} not'
    return text


def _describe(terms: Mapping[str, Tensor]) -> str:
    """The terms of a loss that are not finite, with their values."""
    values = {k: float(torch.as_tensor(v).detach()) for k, v in terms.items()}
    return ', '.join(
        f'{key} is {value}'
        for key, value in values.items()
        if not math.isfinite(value)
    )


def _first_nonfinite(named: Iterator[tuple[str, Tensor]]) -> str | None:
    for name, tensor in named:
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            return name
    return None
