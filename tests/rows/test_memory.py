"""Rows that do not fit are refused with the bytes, machine by machine."""

from pathlib import Path
from typing import Any

import pytest

from recembed.errors import ConfigError
from recembed.rows import Processes, memory
from recembed.rows.memory import available_memory, check_memory

GIB = 2**30


class Told(Processes):
    """Processes that say what they are told to say."""

    def __init__(self, words: list[tuple[str, int, int | None]]) -> None:
        super().__init__()
        self.words = words

    def tell(self, word: Any) -> list[Any]:
        return list(self.words)


def test_what_fits_passes() -> None:
    check_memory(GIB, 4 * GIB, Told([("a", GIB, 4 * GIB), ("a", 2 * GIB, 4 * GIB), ("b", GIB, 2 * GIB)]))
    check_memory(GIB, GIB, Told([("a", GIB, None)]))  # unknown


def test_processes_of_one_machine_share_its_memory() -> None:
    words: list[tuple[str, int, int | None]] = [("a", 3 * GIB, 5 * GIB), ("a", 3 * GIB, 5 * GIB), ("b", GIB, 9 * GIB)]
    with pytest.raises(ConfigError) as error:
        check_memory(0, 7 * GIB, Told(words))
    assert str(error.value) == (
        "the tables take 7.0 GiB with optimiser rows, 6.0 GiB of it on a, where 5.0 GiB of memory are free (14.0 GiB on "
        "all 2 machines): spread the tables otherwise (--plan), or shrink the tables (embeddings.table, embedding_dim)"
    )


def test_more_than_all_memory_asks_for_machines() -> None:
    with pytest.raises(ConfigError, match=r"20\.0 GiB .* \(5\.0 GiB on all 1 machines\): start more machines"):
        check_memory(0, 20 * GIB, Told([("a", 10 * GIB, 5 * GIB), ("a", 10 * GIB, 5 * GIB)]))


def test_the_limit_of_a_container_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = available_memory()
    if free is None:
        pytest.skip("this system does not say how much memory is free")
    limit, use = tmp_path / "max", tmp_path / "current"
    monkeypatch.setattr(memory, "_LIMITS", ((str(limit), str(use)),))
    limit.write_text("max\n")
    use.write_text("1000\n")
    assert available_memory() == pytest.approx(free, rel=0.5)
    limit.write_text("5000\n")
    assert available_memory() == 4000
    use.write_text("9000\n")
    assert available_memory() == 0
