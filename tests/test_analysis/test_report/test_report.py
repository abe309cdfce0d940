import re

import pytest
from report_runs import distilled, write_run

from mmdiffkd.analysis.report import write_report


def test_a_page_loads_nothing(tmp_path):
    folder = write_run(tmp_path / 'run', config=distilled(tmp_path))
    page = write_report([folder]).read_text()
    assert (folder / 'report.html').stat().st_size < 10_000_000
    own = re.sub(r'<script>.*?</script>', '', page, flags=re.S)
    assert not re.search(r'(src|href)="(?!#)', own)
    assert "default-src 'none'" in own


def test_nothing_is_overwritten(tmp_path):
    folder, page = write_run(tmp_path / 'run'), tmp_path / 'new/page.html'
    assert write_report([folder], page) == page
    page.write_text('mine')
    with pytest.raises(FileExistsError, match='--force'):
        write_report([folder], page)
    assert page.read_text() == 'mine'
    write_report([folder], page, force=True)
    assert 'Distillation report' in page.read_text()
    with pytest.raises(FileExistsError, match='--out'):
        write_report([folder], tmp_path, force=True)


def test_a_run_is_named_once(tmp_path):
    folder = write_run(tmp_path / 'run')
    with pytest.raises(ValueError, match='named twice'):
        write_report([folder, folder / '..' / 'run'], tmp_path / 'page.html')


def test_what_cannot_be_built_has_no_cost(tmp_path):
    config = distilled(tmp_path)
    config.model.student.backbone.type = 'NoSuchNetwork'
    folder = write_run(tmp_path / 'run', config=config)
    page = write_report([folder]).read_text()
    assert 'the cost cannot be counted: ' in page
    assert 'NoSuchNetwork' in page
