"""Checkpoints: of any content, and damaged ones."""

import copy
import io
import warnings
from collections import OrderedDict

import numpy as np
import pytest
import safetensors.torch
import torch
from fuzz_rules import JUNK, works_or_says_why
from hypothesis import given
from hypothesis import strategies as st
from mmengine.logging import HistoryBuffer
from torch import Tensor, nn

from mmdiffkd.utils import load_weights, plain_state_dict, read_checkpoint

MODEL = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


def saved(content, **settings):
    buffer = io.BytesIO()
    torch.save(content, buffer, **settings)
    return buffer.getvalue()


RUN = dict(
    meta=dict(epoch=1, cfg='a = 1', dataset_meta=dict(classes=('a', 'b'))),
    state_dict=MODEL.state_dict(),
    optimizer=torch.optim.Adam(MODEL.parameters()).state_dict(),
    message_hub=dict(
        log_scalars=OrderedDict(loss=HistoryBuffer([1.0, 2.0], [1, 1])),
        runtime_info=dict(seed=np.int64(3), state=np.arange(4, dtype='u4')),
    ),
)
LEGACY = dict(_use_new_zipfile_serialization=False)
FILES = {
    'run': saved(RUN),
    'run, legacy': saved(RUN, **LEGACY),
    'weights': saved(MODEL.state_dict()),
    'weights, legacy': saved(MODEL.state_dict(), **LEGACY),
    'safetensors': safetensors.torch.save(
        MODEL.state_dict(),
        dict(cfg='a = 1', dataset_meta='{"classes": ["a", "b"]}'),
    ),
}


@st.composite
def damaged(draw):
    """A real checkpoint, cut off, with bits flipped or blocks moved."""
    content = bytearray(FILES[draw(st.sampled_from(sorted(FILES)))])
    for _ in range(draw(st.integers(1, 4))):
        where = draw(st.integers(0, len(content)))
        kind = draw(st.sampled_from(['flip', 'cut', 'drop', 'put', 'byte']))
        if kind == 'cut':
            del content[where:]
        elif kind == 'drop':
            del content[where : where + draw(st.integers(1, 64))]
        elif kind == 'put':
            content[where:where] = draw(st.binary(min_size=1, max_size=16))
        elif where < len(content):
            bit = 1 << draw(st.integers(0, 7))
            value = bit ^ content[where] if kind == 'flip' else draw(BYTES)
            content[where] = value
    return bytes(content)


# What pickles are made of, so that damage makes sense now and then.
BYTES = st.one_of(st.sampled_from(list(b'.(}]),Rb0qrKMNcuasetX\x80\x85')),
                  st.integers(0, 255))  # fmt: skip


def load(checkpoint, strict):
    weights = plain_state_dict(checkpoint)
    assert weights and all(isinstance(w, Tensor) for w in weights.values())
    load_weights(copy.deepcopy(MODEL), weights, 'net.pth', strict)


@pytest.fixture(scope='module')
def path(tmp_path_factory):
    return tmp_path_factory.mktemp('fuzz') / 'net.pth'


@given(st.one_of(damaged(), st.binary(max_size=64)))
def test_damaged_file(path, content):
    path.write_bytes(content)
    with warnings.catch_warnings(action='ignore'), works_or_says_why(5):
        load(read_checkpoint(path), strict=False)


TENSORS = st.sampled_from(
    [
        torch.ones(3),
        torch.ones(3, 2),
        torch.ones(3, dtype=torch.long),
        torch.ones(3, 2).to_sparse(),
        torch.ones(3, device='meta'),
        torch.ones(3, dtype=torch.complex64),
        torch.tensor(float('nan')),
        torch.empty(0),
    ]
)
KEYS = st.one_of(
    st.sampled_from(
        [
            *MODEL.state_dict(),
            'module.0.weight',
            'distill.a',
            'steps',
            'module.',
        ]
    ),
    st.text(max_size=3),
    st.integers(),
    st.none(),
)
STATES = st.dictionaries(KEYS, st.one_of(TENSORS, JUNK), max_size=6)
CHECKPOINTS = st.one_of(
    STATES,
    st.dictionaries(
        st.sampled_from(['state_dict', 'model', 'ema_state_dict', 'meta']),
        st.one_of(STATES, JUNK, TENSORS),
    ),
)


@given(CHECKPOINTS, st.booleans())
def test_any_content(checkpoint, strict):
    with warnings.catch_warnings(action='ignore'), works_or_says_why(5):
        load(checkpoint, strict)
