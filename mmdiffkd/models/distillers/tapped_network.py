"""A network that runs as far as its taps need it."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from .forward import arguments_of, forward_to_taps
from .image_shape import find_shape
from .probe import tapped_levels
from .recognition import Tapped
from .taps import Taps


class TappedNetwork:
    """A network with its taps, after a dry run.

    Attributes:
        network (nn.Module): The network.
        taps (Taps): Its taps.
        input_shape (tuple[int, ...]): The shape of the images that it runs
            on, (C, H, W) or (T, C, H, W).
        shapes (dict[str, list[torch.Size]]): What each tap yields for a
            batch of 2, one a level.

    Args:
        network (nn.Module): The student, which runs in train mode, or a
            teacher, which runs in eval mode.
        taps (Iterable[str]): The taps, as written in the config.
        role (str): ``'student'`` or ``'teacher'``.
        image_shapes (Sequence[tuple[int, ...]]): The shapes that its images
            may have, the likeliest first.

    Raises:
        ValueError: If a tap is at fault, or the network runs on none of
            these images.
    """

    def __init__(
        self,
        network: nn.Module,
        taps: Iterable[str],
        role: str,
        image_shapes: Sequence[tuple[int, ...]],
    ) -> None:
        self.network = network
        self.taps = Taps(network, taps, role)
        self._training = role == 'student'
        self.input_shape, self.shapes, self._heads = find_shape(
            network, self.taps, image_shapes, self._training
        )

    def levels(
        self, image: tuple[int, int] | None = None
    ) -> dict[str, list[Tapped]]:
        """What is known of every tensor that the taps yield.

        Args:
            image (tuple[int, int], optional): The one size to which the
                images are resized. Defaults to None.
        """
        return tapped_levels(
            self.network,
            self.taps,
            self.shapes,
            self.input_shape,
            self._training,
            image,
        )

    def heads_of(self, taps: Iterable[str]) -> list[str]:
        """The heads that have to be called for some taps."""
        return sorted({self._heads[tap] for tap in taps if tap in self._heads})

    def run(
        self,
        inputs: Tensor,
        taps: Collection[str],
        boxes: Mapping[str, Tensor] | None = None,
        data_samples: list | None = None,
        forward: Callable = forward_to_taps,
    ) -> None:
        """Run as far as some taps need it, so that they record.

        Without any of them it does not run.

        Args:
            inputs (Tensor): Normalised images (B, C, H, W).
            taps (Collection[str]): The taps.
            boxes (Mapping[str, Tensor], optional): See
                :func:`~.forward.arguments_of`. Defaults to None.
            data_samples (list, optional): The same. Defaults to None.
            forward (Callable): What runs the network, such as
                :func:`~.forward.forward_to_taps`, the default.
        """
        if not taps:
            return
        # Nothing stops in a compiled graph.
        run = self._run_uncompiled if self.taps.stops else self._run
        run(inputs, taps, boxes, data_samples, forward)

    def _run(
        self,
        inputs: Tensor,
        taps: Collection[str],
        boxes: Mapping[str, Tensor] | None,
        data_samples: list | None,
        forward: Callable,
    ) -> None:
        given = arguments_of(
            self.network, self.heads_of(taps), inputs, boxes, data_samples
        )
        with self.taps.record(taps, self.taps.stops):
            forward(self.network, inputs, given)

    @torch.compiler.disable
    def _run_uncompiled(self, *how) -> None:
        self._run(*how)

    def read(
        self, inputs: Tensor, taps: Collection[str], *how
    ) -> dict[str, list[Tensor]]:
        """Run, and take what the taps yield.

        Args:
            inputs (Tensor): Normalised images (B, C, H, W).
            taps (Collection[str]): The taps.
            *how: The other arguments of :meth:`run`.

        Returns:
            dict[str, list[Tensor]]: Each tap's tensors, one a level.
        """
        self.run(inputs, taps, *how)
        tensors = {tap: self.taps.read(tap) for tap in taps}
        self.taps.clear()
        return tensors
