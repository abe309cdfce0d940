"""Comparing a backbone with the figures that its source gives."""

from collections import Counter
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

CLASSES = 100


def check_network(
    build: Callable[[], nn.Module],
    parameters: int,
    mega_macs: float,
    maps: str,
    stem: str,
    width: int,
) -> None:
    """Compare a backbone for 32 x 32 images with its published figures.

    Args:
        build (Callable): Makes the backbone, with all stages returned.
        parameters (int): Parameters, of a linear layer for 100 classes too.
        mega_macs (float): Million multiplications and additions in the
            convolutions and that layer, to one decimal.
        maps (str): Channels and sizes behind the stem and of the published
            stages: ``'16@32 16@32 32@16'``.
        stem (str): Path of the module behind which the first of them lies.
        width (int): Channels of the last map, which is pooled.
    """
    backbone = build().to('meta')
    head = nn.Linear(width, CLASSES, device='meta')
    image = torch.rand(1, 3, 32, 32, device='meta')
    backbone.train(False)
    found = []
    backbone.get_submodule(stem).register_forward_hook(
        lambda module, args, output: found.append(output)
    )
    with FlopCounterMode(display=False) as counter:
        outputs = backbone(image)
        head(outputs[-1].mean((2, 3)))
    found += outputs
    assert outputs[-1].shape[1] == width
    assert found[-1].shape[2] == found[-1].shape[3]
    shapes = [f'{x.shape[1]}@{x.shape[2]}' for x in found]
    assert shapes[: len(maps.split())] == maps.split()
    counted = sum(p.numel() for m in (backbone, head) for p in m.parameters())
    assert counted == parameters
    macs = counter.get_total_flops() / 2e6
    assert macs == pytest.approx(mega_macs, abs=0.0501)


def spread(weight: torch.Tensor) -> float:
    """The standard deviation of a weight about 0."""
    return weight.detach().square().mean().sqrt().item()


def fingerprint(
    network: nn.Module,
    pooled: Callable = lambda network, image: network(image)[-1].mean((2, 3)),
) -> float:
    """One number that depends on every layer and how they are connected.

    Convolutions and norms, in the order in which they run, get weights by a
    formula of their shape and of how many of that shape ran before.

    Args:
        network (nn.Module): Any implementation of the network.
        pooled (Callable): Gives the pooled feature (1, C) for the network
            and an image (1, 3, 32, 32). Defaults to our backbones'.

    Returns:
        float: Of the pooled feature, in float64 and eval mode.
    """
    network.double().train(False)
    image = _waves(3 * 32 * 32, 0.37, 0.2).reshape(1, 3, 32, 32)
    layers = []
    hooks = [
        module.register_forward_hook(lambda m, *_: layers.append(m))
        for module in network.modules()
        if isinstance(module, (nn.Conv2d, nn.BatchNorm2d))
    ]
    with torch.no_grad():
        pooled(network, image)
        for hook in hooks:
            hook.remove()
        before = Counter()
        for layer in layers:
            shape = tuple(layer.weight.shape)
            _fill(layer, before[shape])
            before[shape] += 1
        feature = pooled(network, image).flatten()
    return feature.dot(_waves(len(feature), 0.9, 0.1)).item()


def _waves(length: int, step: float, start: float) -> torch.Tensor:
    return (torch.arange(length, dtype=torch.float64) * step + start).sin()


def _fill(layer: nn.Conv2d | nn.BatchNorm2d, number: int) -> None:
    for i, (name, tensor) in enumerate(layer.state_dict().items()):
        if name == 'num_batches_tracked':
            continue
        waves = _waves(tensor.numel(), 0.7, number + i).reshape(tensor.shape)
        if tensor.dim() == 4:
            waves *= (2 / tensor[0].numel()) ** 0.5
        elif name == 'weight' or name == 'running_var':
            waves = 1 + waves / 4
        else:
            waves /= 4
        tensor.copy_(waves)
