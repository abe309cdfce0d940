import platform
import subprocess
import sys

import pytest

from mmdiffkd.utils import freed_memory

SCRIPT = """
import resource, torch
from mmdiffkd.utils.freed_memory import keep_freed_memory
torch.set_num_threads(1)
if {keep}:
    assert keep_freed_memory()

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def step():
    for _ in range(3):
        torch.zeros(2 ** 26, dtype=torch.uint8)

step()
before = faults()
step()
print(faults() - before)
"""
on_glibc = pytest.mark.skipif(
    platform.libc_ver()[0] != 'glibc', reason='needs glibc'
)


def page_faults(keep):
    command = [sys.executable, '-c', SCRIPT.format(keep=keep)]
    return int(subprocess.check_output(command, text=True))


@on_glibc
def test_memory_is_not_fetched_again():
    assert page_faults(False) > 0
    assert page_faults(True) == 0


def test_a_gpu_has_its_own_memory(monkeypatch):
    monkeypatch.setattr('torch.cuda.is_available', lambda: True)
    monkeypatch.setattr(freed_memory, 'ctypes', None)
    assert not freed_memory.keep_freed_memory()


def test_another_c_library(monkeypatch):
    class Other:
        CDLL = staticmethod(lambda name: object())

    monkeypatch.setattr('torch.cuda.is_available', lambda: False)
    monkeypatch.setattr(freed_memory, 'ctypes', Other)
    assert not freed_memory.keep_freed_memory()
