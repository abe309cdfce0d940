"""Loads the state of the released DiffKD module into a DiffKDNeck."""

from collections.abc import Mapping

import numpy as np
import torch

from mmdiffkd.models.necks import DiffKDNeck

# The released prefix of a parameter's name, and ours.
PREFIXES = {
    'trans.': 'student_projection.',
    'proj.': 'output_projection.',
    'ae.encoder.': 'autoencoder.encoder.',
    'ae.decoder.0.': 'autoencoder.decoder.',
    'model.time_embedding.': 'denoiser.time_embedding.',
    'model.pred.': 'denoiser.prediction.',
    'noise_adapter.feat.0.block.': 'noise_matching.features.block.',
    'noise_adapter.feat.': 'noise_matching.features.',
    'noise_adapter.pred.': 'noise_matching.gate.',
}


def load_reference_state(
    neck: DiffKDNeck, arrays: Mapping[str, np.ndarray]
) -> DiffKDNeck:
    """Load the arrays named ``state/*``, which must cover the whole neck.

    The references are in float64, and so is the neck afterwards. Of the time
    embedding the rows in ``embedding_rows`` are loaded, the others kept.
    """
    neck.double()
    ours = neck.state_dict()
    state = {}
    for key in arrays:
        if not key.startswith('state/'):
            continue
        name = _our_name(key.removeprefix('state/'))
        value = torch.from_numpy(arrays[key])
        if name == 'denoiser.time_embedding.weight':
            rows = torch.from_numpy(arrays['embedding_rows'])
            value = ours[name].index_copy(0, rows, value)
        elif name in ours and ours[name].dim() == 2 and value.dim() == 4:
            # A linear layer of ours is a 1x1 convolution there.
            value = value.flatten(1)
        state[name] = value
    neck.load_state_dict(state)
    return neck


def _our_name(name: str) -> str:
    for released, prefix in PREFIXES.items():
        if name.startswith(released):
            return prefix + name.removeprefix(released)
    raise KeyError(f'no counterpart for the released parameter {name}')
