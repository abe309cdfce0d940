import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ('configs', 'docs', 'mmdiffkd', 'requirements', 'tests', 'tools')


def files(*options):
    result = subprocess.run(
        ['git', 'ls-files', *options, '--', *FOLDERS],
        capture_output=True,
        check=True,
        cwd=ROOT,
        text=True,
    )
    return [Path(line) for line in result.stdout.splitlines()]


@pytest.mark.skipif(
    not (ROOT / '.git').exists() or shutil.which('git') is None,
    reason='needs a git checkout',
)
def test_no_rule_hides_a_file_of_ours():
    """``dist/`` without a leading slash would hide configs/dist."""
    kinds = {file.suffix for file in files('--cached')}
    assert {'.py', '.md', '.sh'} <= kinds
    hidden = [
        file
        for file in files(
            *('--cached', '--others', '--ignored'),
            '--exclude-per-directory=.gitignore',
        )
        if file.suffix in kinds - {''}
    ]
    assert hidden == []
