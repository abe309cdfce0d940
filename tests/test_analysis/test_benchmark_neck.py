import sys

import pytest

from mmdiffkd.analysis.benchmark_neck import (
    REFERENCE,
    import_reference,
    median_of,
)


def test_median_of_runs():
    runs = [
        {'case': 'a', 'row': {'ms': ms, 'all_ms': [ms]}} for ms in (3, 1, 2)
    ]
    merged = median_of(runs)
    assert merged == {'case': 'a', 'row': {'ms': 2, 'all_ms': [[3], [1], [2]]}}


def test_a_reference_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match='git clone https://github'):
        import_reference(tmp_path)


def test_a_reference_is_imported_from_where_it_lies(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, 'path', sys.path[:])
    package = tmp_path / REFERENCE
    package.mkdir(parents=True)
    (package / '__init__.py').write_text('from .parts import DiffKD')
    (package / 'parts.py').write_text('class DiffKD: ...')
    reference = import_reference(tmp_path)
    monkeypatch.delitem(sys.modules, package.name)
    monkeypatch.delitem(sys.modules, f'{package.name}.parts')
    assert reference.__name__ == 'DiffKD'
