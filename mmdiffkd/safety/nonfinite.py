"""Stopping, or going on, where a loss is not finite."""

import math
from collections.abc import Callable, Iterator, Mapping
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
from torch.utils._pytree import tree_leaves
from torch.utils.hooks import RemovableHandle

from mmdiffkd.utils.randomness import random_state, set_random_state

from .atomic_files import atomic_write


class NonFiniteLoss(RuntimeError):
    """A loss is infinite or not a number."""


def replay(model: nn.Module, saved: Mapping) -> dict:
    """Compute the losses of a saved iteration once more.

    Args:
        model (nn.Module): The run's model, not wrapped.
        saved (Mapping): What ``nonfinite_iter_<N>.pth`` holds.

    Returns:
        dict: Losses by name, as the model's forward pass returns them.
    """
    model.load_state_dict(saved['state_dict'])
    set_random_state(saved['random_state'])
    model.train()
    with torch.no_grad():
        data = model.data_preprocessor(deepcopy(saved['batch']), True)
        return model._run_forward(data, mode='loss')


class NonFiniteHook(Hook):
    """Looks at the loss between the backward pass and the optimizer's step.

    If the loss is not finite, the gradients are dropped, so that the step
    changes nothing. Then the run stops. The error names the iteration, the
    terms of the loss that are not finite, the ranges of what they were
    computed from, and the first module whose output is not finite. Batch,
    weights and random state go to ``nonfinite_iter_<N>.pth`` in the work
    directory, for :func:`replay`. On request, the run goes on with the next
    batch instead.

    All processes stop or go on together. Under loss scaling (fp16), the
    scaler skips such a step and lowers its scale. The hook leaves that to
    the scaler ``max_skipped`` times in a row. Gradients that overflow while
    the loss is finite are left to the scaler alone.

    The hook reads one number from the device in each iteration, after the
    backward pass, where MMEngine is about to read the losses anyway. With an
    optimizer wrapper of another kind than MMEngine's ``OptimWrapper``
    (DeepSpeed's, or several in a dict) the loss is seen after the step only.

    A subclass for models of one kind extends :meth:`snapshot`, :meth:`watch`
    and ``replay``.

    Args:
        on_nonfinite (str): ``'stop'`` or ``'skip'``. Defaults to ``'stop'``.
        max_skipped (int): How many iterations may be skipped in a row.
            Defaults to 10.
    """

    # Before the hooks that save and average weights.
    priority = 'HIGH'
    replay = staticmethod(replay)

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
        """Stop the run, or count the iteration as skipped.

        Raises:
            NonFiniteLoss: If the loss was not finite, and the run is to stop
                or has skipped too many iterations.
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
        if name := _first_nonfinite(runner.model.named_buffers()):
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
            saved = self.snapshot(runner, model, batch)
            if self._failed_here:
                lines.append(self._save(runner, saved))
            with context(runner.model):
                report = self._diagnose(model, saved)
            if self._failed_here:
                lines += report
        except Exception as error:
            lines.append(f'Computing it once more failed: {error!r}.')
        lines.append(
            'The step did not take place.'
            if self._guarded
            else 'The step has taken place: the weights are spoilt.'
        )
        # Wait until every process has written its file.
        barrier()
        raise NonFiniteLoss('\n'.join(lines))

    def _save(self, runner: Runner, saved: dict) -> str:
        rank = f'_rank{get_rank()}' if is_distributed() else ''
        name = f'nonfinite_iter_{saved["iter"]}{rank}.pth'
        path = Path(runner.work_dir) / name
        try:
            with atomic_write(path) as file:
                torch.save(saved, file)
        except (OSError, RuntimeError) as error:
            return f'Batch and weights could not be saved: {error}.'
        return (
            f'Batch, weights and random state are in {path}, for '
            f'{self.replay.__module__}.replay.'
        )

    def _diagnose(self, model: nn.Module, saved: dict) -> list[str]:
        """Compute the losses again and look at everything on the way."""
        first: list[str] = []
        ranges: dict[str, list[str]] = {'': []}

        def look(name: str, module: nn.Module, inputs: tuple, output) -> None:
            if not first and not _is_finite(output):
                first.append(name)

        def note(prefix: str, label: str, values: object) -> None:
            ranges.setdefault(prefix, []).extend(
                f'{label}[{i}] {_range(tensor)}'
                for i, tensor in enumerate(_tensors(values))
            )

        with ExitStack() as hooks:
            for name, module in model.named_modules():
                handle = module.register_forward_hook(partial(look, name))
                hooks.enter_context(handle)
            for handle in self.watch(model, note):
                hooks.enter_context(handle)
            losses = self.replay(model, saved)
        bad = [key for key, value in losses.items() if not _is_finite(value)]
        lines = []
        if not bad:
            lines.append(
                'Computed once more, it is finite: something in it is not '
                'deterministic, or memory is faulty.'
            )
        for prefix in dict.fromkeys(
            max(filter(key.startswith, ranges), key=len) for key in bad
        ):
            what = prefix.rstrip('.') or 'the task'
            lines.append(f'Inputs of {what}: {"; ".join(ranges[prefix])}.')
        batch = _range(*_tensors(saved['batch']))
        lines.append(f'The batch as loaded: {batch}.')
        if weights := _first_nonfinite(model.named_parameters()):
            lines.append(f'Weights that are not finite themselves: {weights}.')
        elif first:
            lines.append(f'First module with such an output: {first[0]}.')
        return lines

    def snapshot(
        self, runner: Runner, model: nn.Module, batch: object
    ) -> dict:
        """What to save of an iteration, for ``replay``."""
        state = model.state_dict().items()
        return {
            'iter': runner.iter + 1,
            'progress': (runner.epoch, runner.iter),
            'batch': batch,
            'state_dict': {k: v.cpu().clone() for k, v in state},
            'random_state': self._random_state,
        }

    def watch(
        self, model: nn.Module, note: Callable[[str, str, object], None]
    ) -> list[RemovableHandle]:
        """Note what the losses are computed from, in a forward pass.

        ``note(prefix, label, tensors)`` says that the losses whose names
        begin with the prefix are computed from the tensors. Here these are
        the outputs of the model's direct parts, for all losses.
        """
        return [
            module.register_forward_hook(
                lambda m, x, output, name=name: note('', name, output)
            )
            for name, module in model.named_children()
        ]


def _tensors(value: object) -> Iterator[Tensor]:
    """The tensors of floats, and of images, in nested lists and dicts."""
    for leaf in tree_leaves(value):
        if isinstance(leaf, Tensor) and (
            leaf.is_floating_point() or leaf.dtype is torch.uint8
        ):
            yield leaf


def _is_finite(value: object) -> bool:
    return all(bool(t.isfinite().all()) for t in _tensors(value))


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
    return next((name for name, t in named if not _is_finite(t)), None)
