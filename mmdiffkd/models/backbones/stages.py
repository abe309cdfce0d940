"""What backbones that are a stem and a row of stages share."""

from collections.abc import Mapping, Sequence

from mmengine.model import BaseModule
from torch import Tensor, nn

# He initialisation: N(0, 2 / (k * k * output channels)), whatever the groups.
KAIMING = (
    dict(type='Kaiming', layer='Conv2d'),
    dict(type='Constant', val=1, layer='_BatchNorm'),
)


class StagedBackbone(BaseModule):
    """Runs a stem, then stages one after another.

    No activation works in place, so that a tap may read what goes into one
    as well as what comes out.

    Args:
        stem (nn.Module): What runs first, found as ``stem``.
        stages (Mapping[str, nn.Module]): The stages in their order, found
            under their names.
        out_indices (Sequence[int]): Stages whose maps are returned.
        init_cfg (dict or list, optional): Config of the initialisation.
            Defaults to None, which means PyTorch's.

    Raises:
        ValueError: If there is no such stage.
    """

    def __init__(
        self,
        stem: nn.Module,
        stages: Mapping[str, nn.Module],
        out_indices: Sequence[int],
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if not set(out_indices) <= set(range(len(stages))):
            raise ValueError(
                f'out_indices={tuple(out_indices)}: the stages are 0 to '
                f'{len(stages) - 1} ({", ".join(stages)}).'
            )
        self.out_indices = tuple(out_indices)
        self.stages = tuple(stages)
        self.stem = stem
        for name, stage in stages.items():
            self.add_module(name, stage)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Returns the maps of the stages in ``out_indices``.

        Args:
            x (Tensor): Images of shape (B, 3, H, W).

        Returns:
            tuple[Tensor, ...]: Maps of shape (B, C, H', W'), in the order of
            the stages.
        """
        x = self.stem(x)
        maps = []
        for i, name in enumerate(self.stages):
            x = getattr(self, name)(x)
            if i in self.out_indices:
                maps.append(x)
        return tuple(maps)
