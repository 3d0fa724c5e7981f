"""What the tests share: tiny data and the folder of real data, where there is one."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder named by RECEMBED_DATA, or skip."""
    folder = os.environ.get("RECEMBED_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("RECEMBED_DATA names no folder of real data")
    return Path(folder).resolve()
