"""Sharding a distiller over processes, with a full teacher on each."""

from collections.abc import Mapping, Sequence

from torch import nn

from mmdiffkd import safety
from mmdiffkd.models.distillers import Distiller
from mmdiffkd.registry import STRATEGIES


@STRATEGIES.register_module()
class FSDPStrategy(safety.FSDPStrategy):
    """MMEngine's fully sharded data parallel training, for a distiller.

    Parameters, gradients and optimizer state of student and necks are spread
    over the processes. The teacher has no gradients and no optimizer state.
    Each process holds all of it.

    - The student is a unit of its own, so that a checkpoint is the plain
      student's, as without sharding.
    - How checkpoints are written and gradients are clipped:
      :class:`mmdiffkd.safety.FSDPStrategy`.

    Not supported: EMA, pictures of the denoising (``panel_interval``), a
    ``task_weight`` of 0, and what needs the necks before a checkpoint is
    loaded (memory banks on resume), since ``FlexibleRunner`` loads before
    hooks are asked.

    All other arguments are MMEngine's.

    Args:
        units (Sequence[str]): Classes in the student, by name, whose modules
            are gathered one at a time, ``('SwinBlock',)`` say. Defaults to
            (): the student is gathered at once, which saves memory for
            gradients and optimizer state but not for parameters.
        model_wrapper (dict, optional): Arguments of MMEngine's
            ``MMFullyShardedDataParallel``. Defaults to None.

    Raises:
        ValueError: If an argument would leave a distiller wrong.
    """

    def __init__(
        self,
        *,
        units: Sequence[str] = (),
        model_wrapper: Mapping | None = None,
        **kwargs,
    ) -> None:
        precision = (model_wrapper or {}).get('mixed_precision') or {}
        if dict(precision).get('buffer_dtype'):
            raise ValueError(
                '`strategy.model_wrapper.mixed_precision.buffer_dtype` is '
                'set, which a distiller cannot have. Leave it out: noise '
                'schedules stay in float32.'
            )
        super().__init__(units=units, model_wrapper=model_wrapper, **kwargs)

    def root(self, model: nn.Module) -> nn.Module:
        """The student.

        Raises:
            TypeError: If the model is no distiller.
            ValueError: If the student's own losses are 0 at a time.
        """
        if not isinstance(model, Distiller):
            raise TypeError(
                'mmdiffkd.FSDPStrategy shards a mmdiffkd.Distiller, but the '
                f'model is a {type(model).__name__}. Use '
                "strategy=dict(type='FSDPStrategy') for a plain recipe."
            )
        if not model.student_task.always_active:
            raise ValueError(
                '`model.task_weight` is 0, or is 0 for a time by `start` or '
                '`stop` of `model.task_schedule`, which mmdiffkd.FSDPStrategy '
                "does not support: it gathers the student's parameters for "
                'its own losses alone. Train without `strategy`.'
            )
        return model.student
