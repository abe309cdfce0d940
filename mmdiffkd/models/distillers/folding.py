"""Folding batch norms of a frozen network into the convolutions before."""

from collections import Counter, defaultdict
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary


class _Output:
    """Where the output of one convolution is used."""

    def __init__(self) -> None:
        self.conv: nn.Conv2d | None = None
        self.norm: _BatchNorm | None = None
        self.reads = 0
        self.handed_on = False


class _Watch(TorchDispatchMode):
    """Follows what convolutions compute, operation by operation."""

    def __init__(self) -> None:
        super().__init__()
        # By identity, and gone with the tensor.
        self.watched = WeakTensorKeyDictionary()
        self.by_weight: dict[Tensor, list[_Output]] = defaultdict(list)
        self.norm_calls: Counter[nn.Module] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        for output in self._watched_in((args, kwargs)):
            output.reads += 1
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.convolution.default:
            self.watched[result] = output = _Output()
            self.by_weight[args[1]].append(output)
        return result

    def after_module(
        self, module: nn.Module, args: tuple, result: object
    ) -> None:
        """Forward hook of every module."""
        if isinstance(module, _BatchNorm):
            self.norm_calls[module] += 1
            for output in self._watched_in(args):
                output.norm = module
        for output in self._watched_in(result):
            if isinstance(module, nn.Conv2d) and output.conv is None:
                output.conv = module
            else:
                output.handed_on = True

    def _watched_in(self, value: object) -> list[_Output]:
        tensors = [t for t in tree_leaves(value) if isinstance(t, Tensor)]
        return [self.watched[t] for t in tensors if t in self.watched]


def find_pairs(
    network: nn.Module, run: Callable[[], object]
) -> list[tuple[nn.Conv2d, _BatchNorm]]:
    """Find the batch norms that can be folded into a convolution.

    Networks register their children in any order, so that the pairs are
    found in a forward pass. In every call the convolution's output has to be
    what its own weight gave, read by one operation alone, that of the batch
    norm, and handed on by no other module; and the batch norm reads nothing
    else. A module with hooks (a tap, say) is left alone, and so is a batch
    norm with a forward of its own, which may bring its activation.

    Args:
        network (nn.Module): A network in eval mode.
        run (Callable): Runs it on a batch.

    Returns:
        list[tuple[nn.Conv2d, _BatchNorm]]: The pairs, in the order in which
        they ran.
    """
    watch = _Watch()
    handle = register_module_forward_hook(watch.after_module)
    try:
        with torch.no_grad(), watch:
            run()
    finally:
        handle.remove()
    own = set(network.modules())
    pairs = []
    for weight, outputs in watch.by_weight.items():
        conv, norm = outputs[0].conv, outputs[0].norm
        if (
            {conv, norm} <= own
            and all(
                (o.conv, o.norm, o.reads) == (conv, norm, 1) for o in outputs
            )
            and not any(o.handed_on for o in outputs)
            and watch.norm_calls[norm] == len(outputs)
            and weight is conv._parameters.get('weight')
            and type(norm).forward is _BatchNorm.forward
            and norm.running_var is not None
            and not norm.training
            and not _has_hooks(conv)
            and not _has_hooks(norm)
        ):
            pairs.append((conv, norm))
    return pairs


def _has_hooks(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def fold_batch_norms(
    network: nn.Module, run: Callable[[], object]
) -> tuple[int, Callable[[], None]]:
    """Fold batch norms into the convolutions before them, in place.

    What is folded becomes an identity; see :func:`find_pairs` for what is.

    Args:
        network (nn.Module): A frozen network in eval mode.
        run (Callable): Runs it on a batch.

    Returns:
        tuple[int, Callable]: The number of batch norms folded, and a
        function that puts everything back.
    """
    pairs = find_pairs(network, run)
    values = [(conv, conv.weight, conv.bias) for conv, _ in pairs]
    for conv, norm in pairs:
        conv.weight, conv.bias = fuse_conv_bn_weights(
            conv.weight,
            conv.bias,
            norm.running_mean,
            norm.running_var,
            norm.eps,
            norm.weight,
            norm.bias,
        )
        conv.requires_grad_(False)
    folded = {norm for _, norm in pairs}
    places = [
        (module, name, child)
        for module in network.modules()
        for name, child in module._modules.items()
        if child in folded
    ]
    for module, name, _ in places:
        module._modules[name] = nn.Identity().eval()

    def restore() -> None:
        for conv, weight, bias in values:
            conv.weight, conv.bias = weight, bias
        for module, name, norm in places:
            module._modules[name] = norm

    return len(pairs), restore
