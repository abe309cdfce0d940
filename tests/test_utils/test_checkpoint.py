import collections
import hashlib
import io
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from safetensors.torch import save, save_file
from torch import nn

from mmdiffkd.utils import (
    class_names,
    load_weights,
    plain_state_dict,
    read_checkpoint,
)
from mmdiffkd.utils.checkpoint import is_safetensors, read_file

LEGACY = dict(_use_new_zipfile_serialization=False)


class Attack:
    def __init__(self, victim):
        self.victim = victim

    def __reduce__(self):
        return open, (str(self.victim), 'w')


class Reach:
    """Tries to get hold of a module's globals by getattr."""

    def __reduce__(self):
        return getattr, (HistoryBuffer.mean, '__globals__')


@pytest.mark.parametrize('content', [Attack, Reach])
def test_code_in_a_file_is_not_run(tmp_path, content):
    victim = tmp_path / 'victim'
    path = tmp_path / 'file.pth'
    item = Reach() if content is Reach else Attack(victim)
    torch.save(dict(state_dict=dict(a=item)), path)
    with pytest.raises(ValueError, match=r'(getattr|open).*trusted=True'):
        read_checkpoint(path)
    assert not victim.exists()


class Call:
    """Calls what is allowed as a value, but not as a function."""

    def __reduce__(self):
        return HistoryBuffer.mean, (HistoryBuffer(),)


@pytest.mark.parametrize(
    ('content', 'name'),
    [
        (np.array([{}], dtype=object), 'ObjectDType'),
        (np.zeros(1, [('a', 'f4')]), 'VoidDType'),
        (Path('x'), 'pathlib.PosixPath'),
        (collections.deque(), 'collections.deque'),
        (Call(), 'HistoryBuffer.mean'),
    ],
)
def test_type_beyond_the_list_is_named(tmp_path, content, name):
    path = tmp_path / 'file.pth'
    torch.save(dict(a=content), path)
    with pytest.raises(ValueError, match=rf'{name}.*trusted=True'):
        read_checkpoint(path)


def test_trusted_file_is_read_whole(tmp_path):
    path = tmp_path / 'file.pth'
    torch.save(dict(state_dict={}, extra=os.path.join), path)
    assert read_checkpoint(path, trusted=True)['extra'] is os.path.join
    with pytest.raises(ValueError, match="`trusted` is 'no'"):
        read_checkpoint(path, trusted='no')


def test_sha256_is_checked(tmp_path):
    path = tmp_path / 'file.pth'
    torch.save(dict(a=torch.ones(1)), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert read_checkpoint(f'{path}#sha256={digest}')['a'] == 1
    torch.save(dict(a=torch.zeros(1)), path)
    with pytest.raises(ValueError, match='file.pth.*not the file'):
        read_checkpoint(f'{path}#sha256={digest}')


def test_what_mmengine_writes_is_read(tmp_path):
    history = HistoryBuffer([1.0, 2.0], [1, 1])
    content = dict(
        state_dict=dict(a=torch.ones(2)),
        message_hub=dict(log_scalars=dict(loss=history)),
        score=np.float64(3.5),
        array=np.arange(3),
        count=np.int64(4),
    )
    torch.save(content, tmp_path / 'file.pth')
    read = read_checkpoint(str(tmp_path / 'file.pth'))
    assert read['score'] == 3.5 and read['count'] == 4
    assert read['message_hub']['log_scalars']['loss'].mean() == 1.5


def test_numpy_numbers_are_read(tmp_path):
    codes = '?' + np.typecodes['AllInteger'] + np.typecodes['AllFloat']
    arrays = {code: np.ones(2, code) for code in codes}
    scalars = {f'{code} scalar': array[0] for code, array in arrays.items()}
    content = arrays | scalars | dict(empty=np.array([]))
    torch.save(content, tmp_path / 'file.pth')
    read = read_checkpoint(tmp_path / 'file.pth')
    for code, array in arrays.items():
        assert read[code].dtype == array.dtype and (read[code] == 1).all()
        assert read[f'{code} scalar'] == 1
    assert read['empty'].shape == (0,)


@pytest.mark.parametrize(
    'meta, names',
    [
        (dict(classes=('cat', 'dog')), ['cat', 'dog']),
        (dict(dataset_meta=dict(classes=['cat'])), ['cat']),
        (dict(dataset_meta=dict(CLASSES=['cat'])), ['cat']),
        (dict(CLASSES=('cat',), dataset_meta=None), ['cat']),
        (dict(dataset_meta=dict(classes=None)), None),
        (dict(classes='names.txt'), None),
        (dict(epoch=3), None),
        (torch.ones(2), None),
        (None, None),
    ],
)
def test_class_names(meta, names):
    assert class_names(meta) == names


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='absent.pth'):
        read_checkpoint(tmp_path / 'absent.pth')


@pytest.mark.parametrize(
    'kind', ['truncated', 'text', 'short', 'empty', 'list']
)
def test_broken_file_is_named(tmp_path, kind):
    path = tmp_path / 'file.pth'
    torch.save(dict(a=torch.rand(100, 100)), path)
    if kind == 'truncated':
        path.write_bytes(path.read_bytes()[:5000])
    elif kind == 'list':
        torch.save([1], path)
    else:
        texts = dict(text='no checkpoint', short='abc', empty='')
        path.write_text(texts[kind])
    with pytest.raises(ValueError, match='file.pth'):
        read_checkpoint(path)


def test_legacy_pickle_of_tensors_is_read(tmp_path):
    path = tmp_path / 'file.pth'
    torch.save(dict(a=torch.ones(2)), path, **LEGACY)
    assert read_checkpoint(path)['a'].sum() == 2
    path.write_bytes(pickle.dumps(dict(a=1)))
    with pytest.raises(ValueError, match='file.pth'):
        read_checkpoint(path)


@pytest.mark.parametrize('name', ['file.safetensors', 'file.pth'])
def test_safetensors_are_read_by_content(tmp_path, name):
    path = tmp_path / name
    weights = {'a.weight': torch.rand(2, 3), 'steps': torch.tensor(4)}
    weights |= {'b': torch.ones(2, dtype=torch.bfloat16), 'c': torch.empty(0)}
    save_file(weights, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    for source in (path, str(path), f'{path}#sha256={digest}'):
        checkpoint = read_checkpoint(source)
        assert checkpoint['meta'] == {}
        read = plain_state_dict(checkpoint)
        assert read.keys() == weights.keys()
        for key, tensor in weights.items():
            assert torch.equal(read[key], tensor)
            assert read[key].dtype == tensor.dtype


def test_metadata_of_safetensors(tmp_path):
    path = tmp_path / 'file.safetensors'
    metadata = dict(
        format='pt',
        cfg='a = 1',
        dataset_meta=json.dumps(dict(classes=['cat', 'dog'])),
    )
    save_file(dict(a=torch.ones(1)), path, metadata)
    meta = read_checkpoint(path)['meta']
    assert meta == dict(cfg='a = 1', dataset_meta=dict(classes=['cat', 'dog']))
    assert class_names(meta) == ['cat', 'dog']


@pytest.mark.parametrize(
    'map_location',
    [
        'meta',
        torch.device('meta'),
        {'cpu': 'meta', 'cuda:0': 'cpu'},
        lambda storage, location: torch.UntypedStorage(0, device='meta'),
        # Which leave a tensor where it is.
        None,
        'cpu',
        {'cuda:0': 'cpu'},
        lambda storage, location: storage if location == 'cpu' else None,
        lambda storage, location: None,
    ],
)
def test_map_location_of_safetensors(map_location):
    """Tensors go where they go from a file of torch."""
    pickled = io.BytesIO()
    torch.save(dict(a=torch.ones(2)), pickled)
    pickled.seek(0)
    expected = read_file(pickled, 'a.pth', map_location=map_location)['a']
    file = io.BytesIO(save(dict(a=torch.ones(2))))
    read = read_file(file, 'a', map_location=map_location)['state_dict']['a']
    assert read.device == expected.device and read.shape == expected.shape


@pytest.mark.parametrize(
    'damage',
    [
        lambda content: content[:5],
        lambda content: content[:20],
        lambda content: content[:-1],
        lambda content: content + b'0',
        lambda content: content[:40] + content[41:],
        lambda content: b'\xff' * 8 + content[8:],
        lambda content: content[:8] + b'{' * 50 + content[58:],
        lambda content: content.replace(b'F32', b'F33'),
        lambda content: content.replace(b'"{}"', b'"{!"'),
    ],
)
def test_damaged_safetensors_are_named(tmp_path, damage):
    path = tmp_path / 'file.safetensors'
    save_file(dict(a=torch.ones(10)), path, dict(dataset_meta='{}'))
    path.write_bytes(damage(path.read_bytes()))
    message = r'file\.safetensors.*truncated or no checkpoint.*again'
    with pytest.raises(ValueError, match=message):
        read_checkpoint(path)


@pytest.mark.parametrize('settings', [{}, LEGACY])
def test_files_of_torch_are_no_safetensors(tmp_path, settings):
    path = tmp_path / 'file.safetensors'
    torch.save(dict(a=torch.ones(2)), path, **settings)
    assert not is_safetensors(path)
    assert read_checkpoint(path)['a'].sum() == 2


@pytest.mark.parametrize(
    'checkpoint',
    [
        dict(a=torch.ones(1)),
        dict(state_dict=dict(a=torch.ones(1)), meta={}),
        dict(model=dict(a=torch.ones(1))),
        {'state_dict': {'module.a': torch.ones(1)}},
        {'state_dict': {'a': torch.ones(1), 'distill.x': torch.ones(1)}},
        {'ema_state_dict': {'steps': torch.ones(()),
                            'module.a': torch.ones(1)}},
    ],
)  # fmt: skip
def test_plain_state_dict(checkpoint):
    assert dict(plain_state_dict(checkpoint)) == dict(a=torch.ones(1))


def test_checkpoint_without_weights_is_refused():
    with pytest.raises(ValueError, match='no weights.*meta'):
        plain_state_dict(dict(meta=dict(epoch=1)))


def test_load_weights_reports_everything_at_once():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 3))
    weights = model.state_dict()
    load_weights(model, weights, 'file')
    weights['0.weight'] = torch.ones(5, 5)
    weights['extra'] = weights.pop('1.bias')
    with pytest.raises(ValueError) as error:
        load_weights(model, weights, 'file')
    for part in ("'file'", '0.weight: (5, 5) in the file', 'Sequential'):
        assert part in str(error.value)
    with pytest.raises(ValueError, match='another shape'):
        load_weights(model, weights, 'file', strict=False)
