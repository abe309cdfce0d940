"""Reading checkpoints without running code from them."""

import json
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import IO, Any

import numpy as np
import safetensors.torch
import torch
from mmengine.logging import HistoryBuffer
from torch import Tensor, nn
from torch.serialization import (
    add_safe_globals,
    clear_safe_globals,
    get_safe_globals,
)

from .download import local_file

DISTILL_PREFIX = 'distill.'

#: How torch says that a file needs a type which is not allowed.
_FOREIGN = re.compile(
    r"GLOBAL (\S+)|allowlisted via .* but got <class '(.+)'>"
    r'|call reduce for unrecognized function (.+)'
)


def _history_method(cls: type, name: str) -> object:
    """Stands in for ``getattr``, by which a history names its statistics."""
    if cls is not HistoryBuffer or name.startswith('_'):
        raise UnpicklingError(f'GLOBAL builtins.getattr of {name!r}')
    return getattr(cls, name)


def _allowed_types() -> list:
    """What MMEngine writes into a checkpoint besides tensors."""
    core = getattr(np, '_core', None) or np.core
    numbers = '?' + np.typecodes['AllInteger'] + np.typecodes['AllFloat']
    multiarray = core.multiarray
    return [
        HistoryBuffer,
        (_history_method, 'builtins.getattr'),
        np.ndarray,
        np.dtype,
        # The content of an empty array.
        bytes,
        # The names under which NumPy 1 and 2 pickle the same two.
        (multiarray._reconstruct, 'numpy.core.multiarray._reconstruct'),
        (multiarray.scalar, 'numpy.core.multiarray.scalar'),
        (multiarray._reconstruct, 'numpy._core.multiarray._reconstruct'),
        (multiarray.scalar, 'numpy._core.multiarray.scalar'),
        *{type(np.dtype(code)) for code in numbers},
    ]


@contextmanager
def _only_allowed_types() -> Iterator[None]:
    """Our list alone: others in the process allow more, even ``getattr``."""
    others = get_safe_globals()
    clear_safe_globals()
    add_safe_globals(_allowed_types())
    try:
        yield
    finally:
        clear_safe_globals()
        add_safe_globals(others)


def is_safetensors(file: str | Path | IO[bytes]) -> bool:
    """Whether a file begins as a safetensors file does.

    It begins with the length of a JSON header, eight bytes long, and the
    brace of that header. No file of torch has a brace there.

    Args:
        file (str, Path or file): The file, or an open one, at its beginning.
    """
    if isinstance(file, str | Path):
        with open(file, 'rb') as opened:
            return is_safetensors(opened)
    beginning = file.read(9)
    file.seek(0)
    return beginning[8:] == b'{'


def read_file(
    file: str | Path | IO[bytes],
    name: str,
    trusted: bool = False,
    map_location: str | torch.device | Callable | Mapping | None = 'cpu',
) -> Any:
    """What is in a checkpoint file.

    A file of torch is read with ``weights_only=True`` and our list of types.
    A safetensors file, whatever its name, becomes a checkpoint with
    ``state_dict`` and ``meta``. In ``meta`` are ``dataset_meta`` and ``cfg``
    if the file has them, as ``tools/model_converters/export_student.py``
    writes them.

    Args:
        file (str, Path or file): The file, or an open one.
        name (str): What to call it in messages.
        trusted (bool): Unpickle anything, which runs code from the file.
            Defaults to False.
        map_location (str, torch.device, callable, Mapping or None): Where
            tensors go, see ``torch.load``. Defaults to ``'cpu'``.

    Returns:
        Whatever was saved.

    Raises:
        ValueError: If the file is truncated, is no checkpoint, or needs
            types beyond the list, which are named.
    """
    if not isinstance(trusted, bool):
        raise ValueError(f'`trusted` is {trusted!r}. Write True or False.')
    if is_safetensors(file):
        return _read_safetensors(file, name, map_location)
    return _unpickle(file, name, trusted, map_location)


def _read_safetensors(
    file: str | Path | IO[bytes], name: str, map_location: Any
) -> dict:
    path = isinstance(file, str | Path)
    content = Path(file).read_bytes() if path else file.read()
    try:
        tensors = safetensors.torch.load(content)
        end = 8 + int.from_bytes(content[:8], 'little')
        metadata = json.loads(content[8:end]).get('__metadata__', {})
        meta = {key: metadata[key] for key in ('cfg',) if key in metadata}
        if 'dataset_meta' in metadata:
            meta['dataset_meta'] = json.loads(metadata['dataset_meta'])
    except Exception as error:
        raise ValueError(_broken(name, error)) from error
    device = _device(map_location)
    state = {key: tensor.to(device) for key, tensor in tensors.items()}
    return dict(meta=meta, state_dict=state)


def _device(map_location: Any) -> str | torch.device:
    """Where ``torch.load`` puts what was saved on a CPU."""
    if callable(map_location):
        moved = map_location(torch.UntypedStorage(0), 'cpu')
        return 'cpu' if moved is None else moved.device
    if isinstance(map_location, Mapping):
        map_location = map_location.get('cpu')
    return map_location or 'cpu'


def _unpickle(
    file: str | Path | IO[bytes],
    name: str,
    trusted: bool,
    map_location: Any,
) -> Any:
    try:
        with _only_allowed_types():
            # Not torch.load, which SafeLoader replaces for a moment.
            return torch.serialization.load(
                file, map_location=map_location, weights_only=not trusted
            )
    except UnpicklingError as error:
        # What it was before torch wrapped it in advice.
        reason = error.__context__ or error
        foreign = _FOREIGN.search(str(reason))
        if foreign is None:
            raise ValueError(_broken(name, reason)) from error
        raise ValueError(
            f'checkpoint {name!r} is not read, because it holds a '
            f'{next(filter(None, foreign.groups()))}, and reading that could '
            'run code from the file. If you trust who made it, set '
            '`trusted=True`: in `teacher`, or at the top level of the config '
            'for every other checkpoint.'
        ) from error
    except Exception as error:
        raise ValueError(_broken(name, error)) from error


def _broken(name: str, error: BaseException) -> str:
    reason = str(error).strip().splitlines()
    return (
        f'checkpoint {name!r} cannot be read: it is truncated or no '
        f'checkpoint at all ({reason[0] if reason else error!r}). Copy or '
        'download it again.'
    )


def read_checkpoint(source: str | Path, trusted: bool = False) -> dict:
    """Read a checkpoint file or URL onto the CPU.

    A file of torch is unpickled with ``weights_only=True`` and a short list
    of types that MMEngine itself writes. A safetensors file is read as
    :func:`read_file` says.

    Args:
        source (str or Path): A file, or an https URL, with or without
            ``#sha256=...``, see :func:`~mmdiffkd.utils.download.local_file`.
        trusted (bool): Unpickle anything, which runs code from the file.
            Defaults to False.

    Returns:
        dict: The checkpoint.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file cannot be fetched, does not have that
            sha256, is truncated, is no checkpoint, or needs types beyond
            the list.
    """
    checkpoint = read_file(local_file(source), str(source), trusted)
    if not isinstance(checkpoint, Mapping):
        raise ValueError(
            f'checkpoint {str(source)!r} holds a '
            f'{type(checkpoint).__name__}, not a dictionary of weights. Save '
            'a state dict.'
        )
    return checkpoint


def plain_state_dict(checkpoint: Mapping) -> dict[str, Tensor]:
    """The weights of the plain model in a checkpoint.

    Args:
        checkpoint (Mapping): A bare state dict, an MMEngine checkpoint (with
            EMA, its ``state_dict`` holds the averaged weights), or a
            distiller's, whose ``distill.*`` tensors are left out.

    Returns:
        dict[str, Tensor]: The weights, without a wrapper's ``module.``.

    Raises:
        ValueError: If there are no tensors in it.
    """
    state = checkpoint
    for key in ('state_dict', 'model', 'ema_state_dict'):
        if isinstance(checkpoint.get(key), Mapping):
            state = checkpoint[key]
            break
    weights = OrderedDict()
    for name, tensor in state.items():
        name = str(name).removeprefix('module.')
        if isinstance(tensor, Tensor) and not name.startswith(DISTILL_PREFIX):
            weights[name] = tensor
    # Versions of modules, by which some rename the keys of old files.
    if getattr(state, '_metadata', None):
        weights._metadata = state._metadata
    # The averaged model's own counter, where only EMA weights are stored.
    if state is checkpoint.get('ema_state_dict'):
        weights.pop('steps', None)
    if not weights:
        raise ValueError(
            'the checkpoint holds no weights. Give a state dict or a '
            "checkpoint with the key 'state_dict'; this one has the keys "
            f'{sorted(map(str, checkpoint))[:10]}.'
        )
    return weights


def class_names(meta: object) -> list[str] | None:
    """The names of the classes in a description of data.

    Args:
        meta (object): ``metainfo`` of a data set, or ``meta`` of a
            checkpoint, of today's packages or of older ones.

    Returns:
        list[str] or None: The names; None if there are none.
    """
    if not isinstance(meta, Mapping):
        return None
    found = meta.get('dataset_meta') or meta
    if not isinstance(found, Mapping):
        return None
    names = {str(k).lower(): v for k, v in found.items()}.get('classes')
    return list(map(str, names)) if isinstance(names, list | tuple) else None


def load_weights(
    model: nn.Module,
    weights: Mapping[str, Tensor],
    source: str,
    strict: bool = True,
) -> None:
    """Load weights into a model and say what does not fit.

    Args:
        model (nn.Module): The model.
        weights (Mapping[str, Tensor]): Its state dict.
        source (str): Where the weights come from, for error messages.
        strict (bool): Refuse missing and unexpected keys. Tensors of
            another shape are refused in any case. Defaults to True.

    Raises:
        ValueError: If the weights do not fit; the keys are listed.
    """
    own = model.state_dict()
    shapes = [
        f'{name}: {tuple(weights[name].shape)} in the file, '
        f'{tuple(own[name].shape)} in the model'
        for name in own
        if name in weights and weights[name].shape != own[name].shape
    ]
    try:
        missing, unexpected = model.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        missing, unexpected = [], []
        shapes = shapes or [str(error)]
    missing = [k for k in missing if not k.endswith('num_batches_tracked')]
    if not (shapes or strict and (missing or unexpected)):
        return
    parts = [
        f'{len(keys)} {label}: {", ".join(keys[:12])}'
        + (' ...' if len(keys) > 12 else '')
        for label, keys in (
            ('of another shape', shapes),
            ('missing', missing),
            ('unexpected', unexpected),
        )
        if keys
    ]
    cure = (
        'It belongs to another architecture or another head: give the '
        'checkpoint that goes with this config'
    )
    if not shapes:
        cure += ', or set strict=False if the difference is meant'
    raise ValueError(
        f'checkpoint {source!r} does not fit {type(model).__name__}. '
        + '; '.join(parts)
        + f'. {cure}.'
    )
