"""What the tests share: tiny data and the folder of real data, where there is one."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")  # a busy machine fails no test
_REAL = os.environ.get("RECEMBED_DATA")  # as it was at the start: some tests unset it for themselves


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder named by RECEMBED_DATA, or skip."""
    if not _REAL or not Path(_REAL).is_dir():
        pytest.skip("RECEMBED_DATA names no folder of real data")
    return Path(_REAL).resolve()
