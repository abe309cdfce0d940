"""Sharding a distiller over processes, the teacher whole on each."""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from mmengine._strategy import FSDPStrategy as MMEngineFSDPStrategy
from mmengine.device import get_device
from mmengine.dist import is_main_process
from mmengine.optim import BaseOptimWrapper
from torch import Tensor, nn
from torch.distributed.fsdp import (
    FullOptimStateDictConfig,
    FullStateDictConfig,
    FullyShardedDataParallel,
    ShardingStrategy,
    StateDictType,
)
from torch.nn.utils import (
    clip_grad_norm_,
    clip_grads_with_norm_,
    get_total_norm,
)

from mmdiffkd.registry import STRATEGIES


@STRATEGIES.register_module()
class FSDPStrategy(MMEngineFSDPStrategy):
    """MMEngine's fully sharded data parallel training, for a distiller.

    Parameters, gradients and optimizer state of student and necks are spread
    over the processes; the teacher, which has none of the last two, stays
    whole on each. It runs under MMEngine's ``FlexibleRunner``.

    - The student is a unit of its own, so that checkpoints are the plain
      student's, as without sharding: one file, which any number of processes
      resume from.
    - Gradients are clipped by the norm over all processes; MMEngine's wrapper
      takes each process's share for the whole.
    - A checkpoint is written to a temporary file beside its place, synced and
      renamed.

    Not supported: EMA, pictures of the denoising (``panel_interval``), and
    what needs the necks before a checkpoint is loaded (memory banks on
    resume), since ``FlexibleRunner`` loads before hooks are asked.

    All other arguments are MMEngine's.

    Args:
        units (Sequence[str]): Classes, by name, whose modules are gathered
            one at a time, ``('SwinBlock',)`` say. Defaults to (): the
            student is gathered as a whole, which saves no memory for
            parameters, but for gradients and optimizer state.
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
        wrapper = dict(model_wrapper or {})
        precision = wrapper.get('mixed_precision') or {}
        for key, wrong, cure in (
            (
                'skip_init_weights',
                kwargs.get('skip_init_weights', False),
                'Leave it out: what is not a parameter would stay empty',
            ),
            (
                'state_dict_cfg',
                kwargs.get('state_dict_cfg', 'full') != 'full',
                'Leave it out: a checkpoint is one file',
            ),
            (
                'model_wrapper.auto_wrap_policy',
                'auto_wrap_policy' in wrapper,
                'Name classes in `strategy.units` instead',
            ),
            (
                'model_wrapper.mixed_precision.buffer_dtype',
                dict(precision).get('buffer_dtype'),
                'Leave it out: noise schedules stay in float32',
            ),
        ):
            if wrong:
                raise ValueError(
                    f'`strategy.{key}` is set, which a distiller cannot '
                    f'have. {cure}.'
                )
        self.units = frozenset([units] if isinstance(units, str) else units)
        on_cpu = get_device() == 'cpu'
        if on_cpu:
            wrapper.setdefault('device_id', torch.device('cpu'))
        wrapper.setdefault('type', 'MMFullyShardedDataParallel')
        # Moved to where it is, a tensor would not outlive its gathering.
        options = dict(rank0_only=True, offload_to_cpu=not on_cpu)
        kwargs['state_dict_cfg'] = dict(
            state_dict_type=StateDictType.FULL_STATE_DICT,
            state_dict_config=FullStateDictConfig(**options),
            optim_state_dict_config=FullOptimStateDictConfig(**options),
        )
        super().__init__(model_wrapper=wrapper, **kwargs)

    def _wrap_model(self, model: nn.Module) -> nn.Module:
        student = getattr(model, 'student', None)
        if not hasattr(model, 'idle_parameters'):
            raise TypeError(
                'mmdiffkd.FSDPStrategy shards a mmdiffkd.Distiller, but the '
                f'model is a {type(model).__name__}. Use '
                "strategy=dict(type='FSDPStrategy') for a plain recipe."
            )
        found = {type(module).__name__ for module in student.modules()}
        if self.units - found:
            raise ValueError(
                f'`strategy.units` names {sorted(self.units - found)}, of '
                'which the student has none. It is made of '
                f'{sorted(found)}.'
            )

        def is_unit(
            module: nn.Module, recurse: bool, nonwrapped_numel: int
        ) -> bool:
            # Asked with `recurse`: whether to look inside.
            kind = type(module).__name__
            return recurse or module is student or kind in self.units

        self.model_wrapper['auto_wrap_policy'] = is_unit
        return super()._wrap_model(model)

    def build_optim_wrapper(
        self,
        optim_wrapper: dict | BaseOptimWrapper,
        model: nn.Module | None = None,
    ) -> BaseOptimWrapper:
        """Build MMEngine's, clipping by the norm over all processes.

        Args:
            optim_wrapper (dict or BaseOptimWrapper): The recipe's.
            model (nn.Module, optional): The wrapped distiller. Defaults to
                None.

        Returns:
            BaseOptimWrapper: The wrapper.
        """
        wrapper = super().build_optim_wrapper(optim_wrapper, model)
        shared = model.sharding_strategy is not ShardingStrategy.NO_SHARD
        if shared and getattr(wrapper, 'clip_func', None) is clip_grad_norm_:
            wrapper.clip_func = partial(
                clip_sharded_grad_norm_, group=model.process_group
            )
        return wrapper

    def load_optim_state_dict(self, state_dict: dict) -> None:
        """Give each process its share of the optimizer's state.

        MMEngine passes the three arguments in an order that torch has
        changed.

        Args:
            state_dict (dict): The state of all, as in a checkpoint.
        """
        self.optim_wrapper.load_state_dict(
            FullyShardedDataParallel.optim_state_dict_to_load(
                model=self.model,
                optim=self.optim_wrapper.optimizer,
                optim_state_dict=state_dict,
            )
        )

    def save_checkpoint(self, filename: str, **kwargs) -> None:
        """Save what all processes have; see MMEngine's for the arguments.

        Args:
            filename (str): Where to.
            **kwargs: What to save besides the model.
        """
        path = Path(filename)
        temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
        try:
            super().save_checkpoint(str(temporary), **kwargs)
            if is_main_process():
                with temporary.open('rb') as file:
                    os.fsync(file.fileno())
                temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def clip_sharded_grad_norm_(
    parameters: Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    group: dist.ProcessGroup | None = None,
    **options,
) -> Tensor:
    """Clip gradients of which each process holds a part.

    Every process of the group has to call it.

    Args:
        parameters (Iterable[Tensor]): This process's parts.
        max_norm (float): The limit.
        norm_type (float): The p of the norm. Defaults to 2.0.
        group (ProcessGroup, optional): The processes that hold the parts.
            Defaults to None, all.
        **options: Further ones of ``torch.nn.utils.clip_grad_norm_``.

    Returns:
        Tensor: The norm of all parts together, a scalar.
    """
    parameters = list(parameters)
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = get_total_norm(gradients, norm_type, **options)
    if norm_type == math.inf:
        dist.all_reduce(norm, dist.ReduceOp.MAX, group)
    else:
        norm = norm**norm_type
        dist.all_reduce(norm, group=group)
        norm = norm ** (1 / norm_type)
    clip_grads_with_norm_(parameters, max_norm, norm)
    return norm
