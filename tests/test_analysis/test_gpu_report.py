import json
import math
import os
import sys
import time
from pathlib import Path

import pytest
import torch

from mmdiffkd.analysis import gpu_report
from mmdiffkd.analysis.gpu_report import (
    CONFIG,
    LEVELS,
    SECTIONS,
    TOTAL,
    attempt,
    captured,
    run_section,
    waits,
    write_report,
)
from mmdiffkd.analysis.timing import Part, Settings

ROOT = Path(__file__).resolve().parents[2]
CPU = Settings(torch.device('cpu'), repetitions=2)
ROW = 'import sys; open(sys.argv[1], \'a\').write(\'{"part": "a"}\\n\');'


def python(code):
    return [sys.executable, '-c', code]


def test_a_section_that_fails_keeps_its_rows(tmp_path):
    log = tmp_path / 'log'
    log.write_text('before\n')
    command = python(f"{ROW} print('x | y'); sys.exit(3)")
    result = run_section(command, 60, log)
    assert result['rows'] == [{'part': 'a'}]
    assert result['problem'] == (
        r'Ended with status 3. Its last words: x \| y'
    )
    assert log.read_text() == 'before\nx | y\n'


def is_running(pid):
    try:
        return Path('/proc', pid, 'stat').read_text().split()[2] != 'Z'
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_section_that_takes_too_long_is_stopped_with_its_children(tmp_path):
    pid = tmp_path / 'pid'
    code = f"""
        sleep 600 & echo $! > {pid}
        echo '{{"part": "a"}}' >> $0
        wait
    """
    command = ['sh', '-c', code]
    start = time.monotonic()
    result = run_section(command, 5, tmp_path / 'log')
    assert time.monotonic() - start < 60
    assert result['rows'] == [{'part': 'a'}]
    assert result['problem'] == 'Stopped after 5 s.'
    # On a busy machine a process that was killed ends a little later.
    while is_running(pid.read_text().strip()):
        assert time.monotonic() - start < 60
        time.sleep(0.1)


def test_a_failure_leaves_the_others_running(tmp_path):
    commands = {
        'first': (python('1 / 0'), 60),
        'second': (python(ROW.replace('}', ', \\"waits\\": 2}')), 60),
    }
    results = write_report(commands, tmp_path / 'out', '# Title')
    page = (tmp_path / 'out/gpu_report.md').read_text()
    assert page.startswith('# Title\n\n## first\n')
    assert (
        '**Ended with status 1. Its last words: ZeroDivisionError: '
        'division by zero**'
    ) in page
    table = '|  | waits of the host |\n|---|---|\n| a | 2 |'
    assert f'## second\n\n{table}\n\nTook ' in page
    text = (tmp_path / 'out/gpu_report.json').read_text()
    assert json.loads(text) == results
    assert results['second']['problem'] is None


def test_no_section_runs_longer_than_all_may(tmp_path):
    commands = {'late': (python('while True: pass'), 60)}
    results = write_report(commands, tmp_path, '', total=0)
    assert results['late']['problem'] == 'Stopped after 0 s.'


def test_the_limits_fit_into_the_total():
    assert sum(seconds for seconds, _ in SECTIONS.values()) <= TOTAL
    assert TOTAL < 600
    assert (ROOT / CONFIG).is_file()


def test_levels_are_those_of_the_image():
    for level, (_, channels, *size) in enumerate(LEVELS):
        stride = 8 * 2**level
        assert channels == 256
        assert size == [math.ceil(x / stride) for x in (800, 1344)]


def scaled(factor, device='cpu'):
    weight = torch.ones(3, device=device, requires_grad=True)
    return Part('x', lambda: (factor * weight).sum().backward(), [weight])


def test_what_an_attempt_measures():
    row = attempt(lambda: scaled(2.0), 'eager', CPU)
    assert 0 < row['ms_low'] <= row['ms'] <= row['ms_high']
    assert row['peak_mib'] > 0
    assert row['note'] == ''
    row = attempt(lambda: scaled(math.nan), 'eager', CPU)
    assert 'Gradients are not finite' in row['note']


def test_a_failed_attempt_says_why():
    def fail():
        try:
            raise ValueError('a | b\nc')
        except ValueError:
            raise RuntimeError('another')  # noqa: B904

    assert attempt(fail, 'eager', CPU) == {'note': r'ValueError: a \| b c'}
    row = attempt(lambda: scaled(2.0), 'captured', CPU)
    assert list(row) == ['note']
    assert "captured on device='cpu'" in row['note']


@pytest.mark.gpu
def test_captured_computes_the_same():
    part = scaled(2.0, 'cuda')
    replayed, peak = captured(part)
    (weight,) = part.leaves
    gradient = weight.grad
    gradient.zero_()
    replayed.run()
    assert gradient.tolist() == [2.0] * 3
    assert peak > 0


@pytest.mark.gpu
def test_waits_are_found_where_they_are():
    number = torch.ones((), device='cuda')
    assert waits(lambda: number + 1) == []
    (place,) = waits(lambda: number.item())
    assert place.startswith('test_gpu_report.py:')


TESTS = """
import pytest

@pytest.mark.gpu
@pytest.mark.parametrize('number', range(4))
def test(number):
    if number == 0:
        pytest.skip('no such card')
    assert number < 2, 'too large'

def test_of_another_kind():
    raise AssertionError
"""


def test_outcomes_of_tests(tmp_path, monkeypatch):
    folder = tmp_path / 'tests'
    folder.mkdir()
    (folder / 'test_a.py').write_text(TESTS)
    (folder / 'test_b.py').write_text(
        'import no_such_package\n@pytest.mark.gpu\ndef test(): ...'
    )
    (folder / 'test_c.py').write_text('raise AssertionError')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(os.environ, 'PYTEST_ADDOPTS', '-W ignore')
    first, *others = gpu_report.test_rows(CPU, False)
    assert first == {'part': 'passed', 'count': 1}
    found = {row['part']: row for row in others}
    assert {part: row['count'] for part, row in found.items()} == {
        'skipped': 1,
        'failure': 2,
        'error': 1,
    }
    assert found['skipped']['note'] == 'no such card'
    assert 'no_such_package' in found['error']['note']
