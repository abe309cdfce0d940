"""Reading checkpoints without running code from them."""

import re
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from urllib.error import URLError

import numpy as np
import torch
from mmengine.dist import barrier, is_main_process
from mmengine.logging import HistoryBuffer
from torch import Tensor, nn

DISTILL_PREFIX = 'distill.'


def _history_method(cls: type, name: str) -> object:
    """Stands in for ``getattr``, by which a history names its statistics."""
    if cls is not HistoryBuffer or name.startswith('_'):
        raise UnpicklingError(f'GLOBAL builtins.getattr of {name!r}')
    return getattr(cls, name)


def _allowed_types() -> list:
    """What MMEngine writes into a checkpoint besides tensors."""
    core = getattr(np, '_core', None) or np.core
    dtypes = {
        type(np.dtype(name))
        for name in ('bool', 'int32', 'int64', 'uint32', 'float32', 'float64')
    }
    multiarray = core.multiarray
    return [
        HistoryBuffer,
        (_history_method, 'builtins.getattr'),
        np.ndarray,
        np.dtype,
        multiarray._reconstruct,
        multiarray.scalar,
        # The names under which NumPy 1 and 2 pickle the same two.
        (multiarray._reconstruct, 'numpy.core.multiarray._reconstruct'),
        (multiarray.scalar, 'numpy.core.multiarray.scalar'),
        (multiarray._reconstruct, 'numpy._core.multiarray._reconstruct'),
        (multiarray.scalar, 'numpy._core.multiarray.scalar'),
        *dtypes,
    ]


def read_checkpoint(source: str | Path, trusted: bool = False) -> dict:
    """Read a checkpoint file or URL onto the CPU.

    The file is unpickled with ``weights_only=True`` and a short list of
    types that MMEngine itself writes.

    Args:
        source (str or Path): A file, or an https URL (``http://`` becomes
            ``https://``), which is kept in torch's hub cache.
        trusted (bool): Unpickle anything, which runs code from the file.
            Defaults to False.

    Returns:
        dict: The checkpoint.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is truncated, is no checkpoint, or needs
            types beyond the list.
    """
    text = str(source)
    if re.match(r'https?://', text):
        text = re.sub('^http:', 'https:', text)

        def load() -> dict:
            return torch.hub.load_state_dict_from_url(
                text,
                map_location='cpu',
                weights_only=not trusted,
                progress=is_main_process(),
            )

        # One process downloads, the others find the file in the cache.
        if not is_main_process():
            barrier()
    else:
        if not Path(text).is_file():
            raise FileNotFoundError(
                f'there is no checkpoint {text!r}. Give a file that exists '
                'from the current directory, or an https URL.'
            )

        def load() -> dict:
            return torch.load(
                text, map_location='cpu', weights_only=not trusted
            )

    try:
        with torch.serialization.safe_globals(_allowed_types()):
            checkpoint = load()
    except UnpicklingError as error:
        foreign = re.search(r'GLOBAL (\S+)', str(error))
        if foreign is None:
            raise ValueError(_broken(text, error)) from error
        raise ValueError(
            f'checkpoint {text!r} is not read, because it holds a '
            f'{foreign[1]}, and reading that could run code from the file. '
            'If you trust who made it, set trusted=True beside its path.'
        ) from error
    except URLError as error:
        raise ValueError(
            f'checkpoint {text!r} cannot be downloaded ({error.reason}). '
            'Download it by other means and give the file.'
        ) from error
    except Exception as error:
        raise ValueError(_broken(text, error)) from error
    finally:
        if re.match(r'https?://', text) and is_main_process():
            barrier()
    if not isinstance(checkpoint, Mapping):
        raise ValueError(
            f'checkpoint {text!r} holds a {type(checkpoint).__name__}, not a '
            'dictionary of weights. Save a state dict.'
        )
    return checkpoint


def _broken(name: str, error: Exception) -> str:
    reason = str(error).strip().splitlines()
    return (
        f'checkpoint {name!r} cannot be read: it is truncated or no '
        f'checkpoint at all ({reason[0] if reason else error!r}). Copy or '
        'download it again.'
    )


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
