"""How long to search: 200 cases of each kind, or 10,000.

python -m pytest tests/fuzz --hypothesis-profile=long
"""

import pytest
from hypothesis import HealthCheck, settings
from mmengine.logging import MMLogger

COMMON = dict(
    database=None,
    # Cases have a limit of their own, which also ends those that hang.
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
settings.register_profile(
    'quick', max_examples=200, derandomize=True, **COMMON
)
settings.register_profile('long', max_examples=10_000, **COMMON)
settings.load_profile('quick')


@pytest.fixture(autouse=True, scope='module')
def quiet():
    """Keep what distillers log about themselves out of the output."""
    before = MMLogger._instance_dict.copy()
    MMLogger.get_instance('fuzz', log_level='ERROR')
    yield
    MMLogger._instance_dict.clear()
    MMLogger._instance_dict.update(before)
