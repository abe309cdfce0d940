import mmap

import pytest
import torch
from torch import nn

from mmdiffkd.analysis.timing import Part, Settings, environment, measure

CPU = torch.device('cpu')


def test_parts_run_in_turn(slow_items, capsys):
    ran = []
    parts = [Part(name, lambda name=name: ran.append(name)) for name in 'ab']
    rows = measure(parts, Settings(CPU, repetitions=3))
    assert [row['part'] for row in rows] == ['a', 'b']
    # Two runs to warm up and three that are timed, in turn.
    assert ran[:10] == ['a', 'b'] * 5
    said = capsys.readouterr().err
    assert 'Timing: 2 of 3 rounds, about 11 s left\n' in said
    for row in rows:
        assert len(row['all_ms']) == 3
        assert row['ms_low'] <= row['ms'] <= row['ms_high']


def test_memory_that_the_system_provides_is_counted():
    def fill():
        with mmap.mmap(-1, 2**24) as pages:
            pages.write(bytes(2**24))

    parts = [Part('new', fill), Part('none', lambda: None)]
    new, none = measure(parts, Settings(CPU, repetitions=3))
    assert new['page_faults'] > none['page_faults']


def test_arithmetic_of_both_passes():
    """Forward, the gradient of the weights, and that of the input."""
    layer = nn.Linear(5, 7, bias=False)
    inputs = torch.ones(3, 5, requires_grad=True)
    part = Settings(CPU).training(
        'layer', lambda: layer(inputs).sum(), layer, [inputs]
    )
    (row,) = measure([part], Settings(CPU, repetitions=1))
    assert row['gmacs'] == pytest.approx(3 * 3 * 5 * 7 / 1e9)
    # No gradient is left, nor added to that of the run before.
    assert layer.weight.grad is inputs.grad is None


def test_autocast():
    layer, seen = nn.Linear(2, 2), []

    def forward():
        seen.append(layer(torch.ones(1, 2)).dtype)
        return layer.weight.sum()

    for amp in (None, torch.bfloat16):
        Settings(CPU, amp=amp).training('', forward, layer).run()
    assert seen == [torch.float32, torch.bfloat16]


def test_environment():
    found = environment(Settings(CPU, 7, torch.bfloat16))
    assert found['torch'] == torch.__version__
    assert found['amp'] == 'torch.bfloat16'
    assert found['repetitions'] == 7
    assert f'{torch.get_num_threads()} threads' in found['device']
