import platform
import subprocess
import sys

import pytest

from recembed.rows.freed_memory import hand_back_memory, keep_freed_memory


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's")
def test_what_was_freed_goes_back_to_the_system() -> None:
    code = (
        "import resource; from recembed.rows.freed_memory import hand_back_memory\n"
        "held = lambda: int(open('/proc/self/statm').read().split()[1]) * resource.getpagesize() >> 20\n"
        "blocks = [bytearray(100_000) for _ in range(1000)]; last = bytearray(50_000); del blocks\n"
        "before = held(); hand_back_memory(); print(before - held())"
    )
    environment = {"MALLOC_TRIM_THRESHOLD_": str(2**30), "MALLOC_MMAP_THRESHOLD_": str(2**25)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert int(done.stdout) > 80  # of the 95 MB that were freed


def test_elsewhere_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert hand_back_memory() is False
    assert keep_freed_memory() is False


def test_freed_memory_is_kept_where_there_is_glibc() -> None:
    assert keep_freed_memory() == (platform.libc_ver()[0] == "glibc")
