"""The optimizer of a distiller: the recipe's own, plus the necks."""

import torch
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from mmengine.registry import (
    OPTIM_WRAPPER_CONSTRUCTORS as MMENGINE_CONSTRUCTORS,
)
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn

from mmdiffkd.models.distillers import Distiller
from mmdiffkd.registry import OPTIM_WRAPPER_CONSTRUCTORS

# What a recipe decides by kind of parameter holds for the necks as well.
_RULES = ('norm_decay_mult', 'bias_decay_mult', 'flat_decay_mult')
_DISTILL_KEYS = (
    'student_constructor',
    'distill_lr_mult',
    'distill_decay_mult',
)


def _clipping_separately(
    wrapper_class: type[OptimWrapper],
) -> type[OptimWrapper]:
    """A wrapper class that clips student and necks separately."""

    class ClippingSeparately(wrapper_class):
        distiller: Distiller

        def step(self, **kwargs) -> None:
            for parameter in self.distiller.idle_parameters():
                parameter.grad = None
            super().step(**kwargs)

        def _clip_grad(self) -> None:
            # The recipe's limit holds for each side. The student's norm is
            # logged under the recipe's name, to be compared with a plain run.
            groups = self.optimizer.param_groups
            necks = [g for g in groups if g.get('distill')]
            student = [g for g in groups if not g.get('distill')]
            for side, name in (
                (necks, f'distill.{self.grad_name}'),
                (student, self.grad_name),
            ):
                parameters = [
                    p
                    for group in side
                    for p in group['params']
                    if p.requires_grad and p.grad is not None
                ]
                if not parameters:
                    continue
                norm = self.clip_func(parameters, **self.clip_grad_kwargs)
                if norm is not None:
                    self.message_hub.update_scalar(
                        f'train/{name}', float(norm)
                    )

    ClippingSeparately.__name__ = wrapper_class.__name__
    ClippingSeparately.__qualname__ = wrapper_class.__name__
    return ClippingSeparately


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class OptimWrapperConstructor:
    """Runs a recipe's constructor on the student and adds the necks.

    The recipe's optimizer, its ``paramwise_cfg`` and its wrapper class stay
    as they are. Gradients of the student and of the necks are clipped
    separately, each to the recipe's limit. Multipliers for norms and biases
    in ``paramwise_cfg`` hold for the necks too. The parameters of an entry
    whose weight is 0 have no gradient at the step, so that neither momentum
    nor weight decay moves them.

    Args:
        optim_wrapper_cfg (dict): The recipe's ``optim_wrapper``.
        paramwise_cfg (dict, optional): The recipe's own, in which three keys
            are ours: ``student_constructor`` names the recipe's constructor
            (defaults to MMEngine's ``DefaultOptimWrapperConstructor``),
            ``distill_lr_mult`` and ``distill_decay_mult`` multiply learning
            rate and weight decay of the necks (both default to 1.0).
            Defaults to None.
    """

    def __init__(
        self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None
    ) -> None:
        paramwise = dict(paramwise_cfg or {})
        distill = {key: paramwise.pop(key, None) for key in _DISTILL_KEYS}
        self.wrapper_cfg = optim_wrapper_cfg.copy()
        self.paramwise_cfg = paramwise or None
        self.student_constructor = (
            distill['student_constructor'] or 'DefaultOptimWrapperConstructor'
        )
        self.multipliers = {}
        for key, option in (
            ('distill_lr_mult', 'lr'),
            ('distill_decay_mult', 'weight_decay'),
        ):
            value = 1.0 if distill[key] is None else distill[key]
            if not isinstance(value, (int, float)) or value < 0:
                raise ValueError(
                    f'`optim_wrapper.paramwise_cfg.{key}` is {value!r}. Use '
                    'a number, 0 or more.'
                )
            self.multipliers[option] = value

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Build the optimizer wrapper.

        Args:
            model (nn.Module): The distiller, wrapped or not.

        Returns:
            OptimWrapper: The recipe's, over the student and the necks.

        Raises:
            TypeError: If the model is no distiller.
            ValueError: If the wrapper is not registered, or cannot clip.
        """
        distiller = getattr(model, 'module', model)
        if not isinstance(distiller, Distiller):
            raise TypeError(
                'mmdiffkd.OptimWrapperConstructor builds the optimizer of a '
                f'mmdiffkd.Distiller, but the model is a '
                f'{type(distiller).__name__}. Leave '
                '`optim_wrapper.constructor` out of a plain recipe.'
            )
        config = self.wrapper_cfg.copy()
        kind = config.get('type', 'OptimWrapper')
        if isinstance(kind, str):
            with OPTIM_WRAPPERS.switch_scope_and_registry(None) as registry:
                found = registry.get(kind)
            if found is None:
                raise ValueError(
                    f'`optim_wrapper.type` is {kind!r}, which is not '
                    "registered. Use 'OptimWrapper' or 'AmpOptimWrapper'."
                )
            kind = found
        if config.get('clip_grad') is None:
            config.pop('clip_grad', None)
        elif not issubclass(kind, OptimWrapper):
            raise ValueError(
                '`optim_wrapper.clip_grad` is set, but a '
                f'{kind.__name__} does not clip. Set it to None, and the '
                'limit where it does: DeepSpeed has '
                '`strategy.gradient_clipping`.'
            )
        config['type'] = _clipping_separately(kind)
        build = MMENGINE_CONSTRUCTORS.build(
            dict(
                type=self.student_constructor,
                optim_wrapper_cfg=config,
                paramwise_cfg=self.paramwise_cfg,
            )
        )
        wrapper = build(distiller.student)
        wrapper.distiller = distiller
        self._add_necks(wrapper.optimizer, distiller)
        return wrapper

    def _add_necks(
        self, optimizer: torch.optim.Optimizer, distiller: Distiller
    ) -> None:
        rules = {
            key: value
            for key, value in (self.paramwise_cfg or {}).items()
            if key in _RULES
        }
        groups: list[dict] = []
        DefaultOptimWrapperConstructor(self.wrapper_cfg, rules).add_params(
            groups, distiller.distill, prefix='distill'
        )
        merged: dict[tuple, dict] = {}
        for group in groups:
            options = {
                option: group.get(option, optimizer.defaults[option])
                * multiplier
                for option, multiplier in self.multipliers.items()
                if option in optimizer.defaults
            }
            target = merged.setdefault(
                tuple(options.values()),
                {'params': [], 'distill': True, **options},
            )
            target['params'] += group['params']
        names = {
            p: n for n, p in distiller.distill.named_parameters('distill')
        }
        for group in merged.values():
            # A constructor may name parameters; torch wants all or none.
            if 'param_names' in optimizer.param_groups[0]:
                group['param_names'] = [names[p] for p in group['params']]
            optimizer.add_param_group(group)
