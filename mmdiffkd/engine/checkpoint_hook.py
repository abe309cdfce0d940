"""Checkpoints that any plain recipe can load."""

from mmdiffkd import safety
from mmdiffkd.registry import HOOKS
from mmdiffkd.utils import DISTILL_PREFIX


@HOOKS.register_module()
class CheckpointHook(safety.CheckpointHook):
    """The checkpoint hook of a distiller.

    The ``state_dict`` of a checkpoint is the plain student's. It loads with
    ``strict=True`` into the plain model. What distillation trains lies in
    ``distill_state_dict`` and is put back on loading.

    How files are written and how runs are resumed:
    :class:`mmdiffkd.safety.CheckpointHook`. All other arguments are
    MMEngine's.

    Args:
        exact_resume (bool): Make a resumed run train as if it had never
            stopped, bit for bit on a CPU. Augmentation draws other numbers
            than without. Defaults to False.
    """

    def __init__(self, *args, exact_resume: bool = False, **kwargs) -> None:
        super().__init__(
            *args,
            split={DISTILL_PREFIX: 'distill_state_dict'},
            exact_resume=exact_resume,
            **kwargs,
        )
