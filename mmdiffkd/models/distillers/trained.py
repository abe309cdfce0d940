"""Which parameters what is tapped trains."""

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from mmdiffkd.utils.randomness import isolated_randomness

from .forward import forward_to_taps
from .tapped_network import TappedNetwork
from .taps import TapError, Taps
from .trial import in_mode, run_for_real, run_on_meta


def trained_parameters(
    tapped: TappedNetwork, texts: Sequence[str]
) -> set[str]:
    """The parameters that get a gradient from what some taps yield.

    Frozen ones are among them, if what is behind them would give one.

    A pass forward and backward finds them, on meta tensors if the network
    has no operator without a meta kernel.

    Args:
        tapped (TappedNetwork): The student with its taps.
        texts (Sequence[str]): Which of the taps.

    Returns:
        set[str]: Their names.
    """
    network, taps, shape = tapped.network, tapped.taps, tapped.input_shape
    run, heads = partial(_there_and_back, taps, texts), tapped.heads_of(texts)
    saved = {p: (p.grad, p.requires_grad) for p in network.parameters()}
    with in_mode(network, True), torch.enable_grad(), isolated_randomness():
        try:
            # What is frozen now may be thawed later.
            for parameter in saved:
                parameter.requires_grad_(parameter.is_floating_point())
            try:
                state = run_on_meta(network, shape, run, heads)
            except TapError:
                raise
            except Exception:
                network.zero_grad()
                state = run_for_real(network, shape, run, heads)
            return {n for n, t in state.items() if t.grad is not None}
        finally:
            taps.clear()
            for parameter, (gradient, learns) in saved.items():
                parameter.grad = gradient
                parameter.requires_grad_(learns)


def _there_and_back(
    taps: Taps,
    texts: Sequence[str],
    network: nn.Module,
    inputs: Tensor,
    heads: Mapping[str, object],
) -> None:
    with taps.record(texts, taps.stops):
        forward_to_taps(network, inputs, heads)
    tensors = [t for text in texts for t in taps.read(text)]
    trained = [t.sum() for t in tensors if t.requires_grad]
    if trained:
        sum(trained).backward()
