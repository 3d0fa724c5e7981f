"""Huge pages: what is asked of the kernel, and that values stay."""

import sys
from pathlib import Path

import pytest
import torch

from recembed.rows.huge_pages import on_huge_pages

SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")
needs_huge_pages = pytest.mark.skipif(
    sys.platform != "linux" or not SETTING.is_file() or "[never]" in SETTING.read_text(), reason="no huge pages here"
)


def advised(address: int) -> bool:
    """Whether the mapping of an address carries the flag ``hg``."""
    here = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first = line.split()[0]
        if "-" in first and not first.endswith(":"):
            low, high = (int(part, 16) for part in first.split("-"))
            here = low <= address < high
        elif here and first == "VmFlags:":
            return "hg" in line.split()
    return False


@needs_huge_pages
def test_large_tensors_are_advised_and_keep_their_values() -> None:
    rows = torch.arange(4 * 2**20, dtype=torch.float32).view(-1, 16)  # 16 MiB
    before, middle = rows.clone(), rows.data_ptr() + 8 * 2**20
    assert on_huge_pages([rows]) == 1
    assert advised(middle)
    assert torch.equal(rows, before)


def test_small_tensors_and_other_devices_are_left_alone() -> None:
    assert on_huge_pages([torch.zeros(1000), torch.zeros(2**24, device="meta")]) == 0
