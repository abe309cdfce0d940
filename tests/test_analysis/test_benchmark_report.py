import pytest

from mmdiffkd.analysis.benchmark_report import split_document


def test_place_in_a_document(tmp_path):
    document = tmp_path / 'document.md'
    document.write_text('a\n<!-- x:begin -->\nold\n<!-- x:end -->\nb\n')
    assert split_document(document, 'x') == (
        'a\n<!-- x:begin -->\n',
        '<!-- x:end -->\nb\n',
    )
    with pytest.raises(ValueError, match='Add the two lines'):
        split_document(document, 'y')
