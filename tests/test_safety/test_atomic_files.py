import errno
import os
import resource
import signal
import subprocess
import sys
import time

import pytest
import torch

from mmdiffkd.safety.atomic_files import (
    AtomicLocalBackend,
    is_complete,
    newest_complete,
    remove_stale,
)

WRITER = """
import os, sys
from mmdiffkd.safety import atomic_files

fsync = os.fsync

def wait(descriptor):
    fsync(descriptor)
    print('writing', flush=True)
    sys.stdin.read()

atomic_files.os.fsync = wait
atomic_files.AtomicLocalBackend().put(b'new', sys.argv[1])
"""


@pytest.fixture
def path(tmp_path):
    path = tmp_path / 'folder/file.pth'
    AtomicLocalBackend().put(b'old', path)
    return path


@pytest.fixture
def writer(path):
    """A process that hangs between writing and renaming."""
    process = subprocess.Popen(
        [sys.executable, '-c', WRITER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == 'writing\n'
    yield process
    process.kill()
    process.communicate()


def names(path):
    return sorted(p.name for p in path.parent.iterdir())


def test_an_error_leaves_the_previous_file(path, monkeypatch):
    def interrupted(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, 'fsync', interrupted)
    with pytest.raises(KeyboardInterrupt):
        AtomicLocalBackend().put(b'new', path)
    assert path.read_bytes() == b'old'
    assert names(path) == ['file.pth']


def test_a_kill_leaves_the_previous_file(path, writer):
    assert len(names(path)) == 2
    # While its writer lives, a temporary file stays.
    remove_stale(path.parent)
    assert len(names(path)) == 2
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    assert path.read_bytes() == b'old'
    remove_stale(path.parent)
    assert names(path) == ['file.pth']


def test_files_of_others_stay(path):
    theirs = path.parent / '.theirs.tmp'
    theirs.touch()
    remove_stale(path.parent)
    assert theirs.exists()


def test_no_room_leaves_the_previous_file(path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(OSError, match='not written') as failure:
            AtomicLocalBackend().put(bytes(20_000), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert failure.value.errno == errno.EFBIG
    assert failure.value.filename == str(path)
    assert path.read_bytes() == b'old'
    assert names(path) == ['file.pth']


def test_what_is_complete(tmp_path):
    whole = tmp_path / 'whole.pth'
    torch.save({'meta': {}, 'state_dict': {'a': torch.ones(9000)}}, whole)
    assert is_complete(whole)
    content = whole.read_bytes()
    broken = tmp_path / 'broken.pth'
    for length in (0, 10, len(content) // 2, len(content) - 1):
        broken.write_bytes(content[:length])
        assert not is_complete(broken), length
    foreign = tmp_path / 'foreign.pth'
    foreign.write_text('an error page of a server')
    assert not is_complete(foreign)
    assert not is_complete(tmp_path / 'missing.pth')
    assert not is_complete(tmp_path)


def test_the_newest_complete_one(tmp_path):
    assert newest_complete(tmp_path) is None
    now = time.time()
    for age, name in enumerate(('epoch_3.pth', 'epoch_2.pth', 'best_2.pth')):
        torch.save({}, tmp_path / name)
        os.utime(tmp_path / name, (now - age, now - age))
    assert newest_complete(tmp_path).name == 'epoch_3.pth'
    (tmp_path / 'epoch_3.pth').write_bytes(b'broken')
    assert newest_complete(tmp_path, 'epoch_*.pth').name == 'epoch_2.pth'
    assert newest_complete(tmp_path, 'best_*.pth').name == 'best_2.pth'
