import pytest

from mmdiffkd.analysis.benchmark_neck import import_reference, median_of


def test_median_of_runs():
    runs = [
        {'case': 'a', 'row': {'ms': ms, 'all_ms': [ms]}} for ms in (3, 1, 2)
    ]
    merged = median_of(runs)
    assert merged == {'case': 'a', 'row': {'ms': 2, 'all_ms': [[3], [1], [2]]}}


def test_a_reference_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match='git clone https://github'):
        import_reference(tmp_path)
