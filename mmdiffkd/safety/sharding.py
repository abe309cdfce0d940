"""Sharding a model over processes, with checkpoints of one file."""

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

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

from .atomic_files import atomic_write


class FSDPStrategy(MMEngineFSDPStrategy):
    """MMEngine's fully sharded data parallel training, made safe.

    It runs under MMEngine's ``FlexibleRunner``.

    - A checkpoint is one file, as without sharding. Any number of processes
      can resume from it. It is written to a temporary file beside its place,
      synced and renamed.
    - Gradients are clipped by the norm over all processes. MMEngine's
      wrapper clips by the norm of each process's part.
    - The state of the optimizer is put back on resume. MMEngine passes it to
      torch in an order of arguments that torch has changed.

    All other arguments are MMEngine's.

    Args:
        units (Sequence[str]): Classes, by name, whose modules are gathered
            one at a time, ``('SwinBlock',)`` say. Defaults to (): the model
            is gathered at once, which saves memory for gradients and
            optimizer state but not for parameters.
        model_wrapper (dict, optional): Arguments of MMEngine's
            ``MMFullyShardedDataParallel``. Defaults to None.

    Raises:
        ValueError: If an argument contradicts the above.
    """

    def __init__(
        self,
        *,
        units: Sequence[str] = (),
        model_wrapper: Mapping | None = None,
        **kwargs,
    ) -> None:
        wrapper = dict(model_wrapper or {})
        if 'auto_wrap_policy' in wrapper:
            raise ValueError(
                '`strategy.model_wrapper.auto_wrap_policy` is set. Name '
                'classes in `strategy.units` instead.'
            )
        for key, only, reason in (
            ('skip_init_weights', False, 'buffers would stay empty'),
            ('state_dict_cfg', 'full', 'a checkpoint is one file'),
        ):
            if kwargs.get(key, only) != only:
                raise ValueError(
                    f'`strategy.{key}` is {kwargs[key]!r}. Leave it out: '
                    f'{reason}.'
                )
        self.units = frozenset([units] if isinstance(units, str) else units)
        on_cpu = get_device() == 'cpu'
        if on_cpu:
            wrapper.setdefault('device_id', torch.device('cpu'))
        wrapper.setdefault('type', 'MMFullyShardedDataParallel')
        # On a CPU offloading copies nothing: FSDP would free the tensor.
        options = dict(rank0_only=True, offload_to_cpu=not on_cpu)
        kwargs['state_dict_cfg'] = dict(
            state_dict_type=StateDictType.FULL_STATE_DICT,
            state_dict_config=FullStateDictConfig(**options),
            optim_state_dict_config=FullOptimStateDictConfig(**options),
        )
        super().__init__(model_wrapper=wrapper, **kwargs)

    def root(self, model: nn.Module) -> nn.Module:
        """The module in which ``units`` are looked for, a unit itself."""
        return model

    def _wrap_model(self, model: nn.Module) -> nn.Module:
        root = self.root(model)
        found = {type(module).__name__ for module in root.modules()}
        if self.units - found:
            raise ValueError(
                f'`strategy.units` names {sorted(self.units - found)}, of '
                f'which the {type(root).__name__} has none. It is made of '
                f'{sorted(found)}.'
            )

        def is_unit(
            module: nn.Module, recurse: bool, nonwrapped_numel: int
        ) -> bool:
            # Asked with `recurse`: whether to look inside.
            kind = type(module).__name__
            return recurse or module is root or kind in self.units

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
            model (nn.Module, optional): The wrapped model. Defaults to None.

        Returns:
            BaseOptimWrapper: The wrapper.
        """
        wrapper = super().build_optim_wrapper(optim_wrapper, model)
        shared = model.sharding_strategy is not ShardingStrategy.NO_SHARD
        if shared and getattr(wrapper, 'clip_func', None) is clip_grad_norm_:
            wrapper.clip_func = partial(
                _clip_sharded_grad_norm, group=model.process_group
            )
        return wrapper

    def load_optim_state_dict(self, state_dict: dict) -> None:
        """Give each process its share of the optimizer's state.

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
        if not is_main_process():
            # The others give their shares and write nothing.
            return super().save_checkpoint(filename, **kwargs)
        with atomic_write(filename) as file:
            super().save_checkpoint(file.name, **kwargs)


def _clip_sharded_grad_norm(
    parameters: Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    group: dist.ProcessGroup | None = None,
    **options,
) -> Tensor:
    """As torch's ``clip_grad_norm_``, where each process holds a part."""
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
