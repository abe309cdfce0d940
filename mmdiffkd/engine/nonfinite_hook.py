"""Losses of a distiller that are not finite."""

from collections.abc import Callable, Mapping

from mmengine.runner import Runner
from torch import nn
from torch.utils.hooks import RemovableHandle

from mmdiffkd import safety
from mmdiffkd.models.distillers import Distiller
from mmdiffkd.registry import HOOKS
from mmdiffkd.safety import NonFiniteLoss, nonfinite
from mmdiffkd.utils import DISTILL_PREFIX

__all__ = ['NonFiniteHook', 'NonFiniteLoss', 'replay']


def replay(model: nn.Module, saved: Mapping) -> dict:
    """Compute the losses of a saved iteration once more, with its noise.

    Arguments and result: :func:`mmdiffkd.safety.nonfinite.replay`.
    """
    if saved.get('noise') is not None:
        model.noise_stream = saved['noise']
        model.set_progress(*saved['progress'])
    return nonfinite.replay(model, saved)


@HOOKS.register_module()
class NonFiniteHook(safety.NonFiniteHook):
    """Stops the run, or skips the batch, where a loss is not finite.

    How it does that: :class:`mmdiffkd.safety.NonFiniteHook`. Of a distiller
    it also says which entry of ``distill`` was computed from which student
    and teacher tensors, and it saves what :func:`replay` needs to draw the
    same noise. A plain model is watched as well.

    Args:
        on_nonfinite (str): ``'stop'`` or ``'skip'``. Defaults to ``'stop'``.
        max_skipped (int): How many iterations may be skipped in a row.
            Defaults to 10.
    """

    replay = staticmethod(replay)

    def snapshot(
        self, runner: Runner, model: nn.Module, batch: object
    ) -> dict:
        """What to save of an iteration, with the position of its noise."""
        saved = super().snapshot(runner, model, batch)
        if isinstance(model, Distiller):
            # The forward pass has counted already.
            saved['state_dict'][f'{DISTILL_PREFIX}step'] -= 1
            saved['noise'] = model.noise_stream
        return saved

    def watch(
        self, model: nn.Module, note: Callable[[str, str, object], None]
    ) -> list[RemovableHandle]:
        """Note the parts of the student, and the inputs of every entry."""
        if not isinstance(model, Distiller):
            return super().watch(model, note)
        handles = super().watch(model.student, note)
        for name, entry in model.distill.items():

            def note_inputs(
                module: nn.Module, inputs: tuple, name: str = name
            ) -> None:
                note(f'{DISTILL_PREFIX}{name}.', 'student', inputs[0])
                note(f'{DISTILL_PREFIX}{name}.', 'teacher', inputs[1])

            handles.append(entry.register_forward_pre_hook(note_inputs))
        return handles
