"""Adaptive tables: who owns a row, who shares, and what that costs."""

from typing import Any

import numpy as np
import pytest
import torch

from recembed.errors import ConfigError
from recembed.hashing import hash_rows, salt
from recembed.tables import AdaptiveConfig, FullTable, Table, TableSpec


def build(spec: TableSpec, **options: Any) -> Table:
    return AdaptiveConfig.model_validate({"exact_below": 0} | options).build([spec], seed=7)[spec.name]


def falling(size: int, width: int = 8, **options: Any) -> TableSpec:
    return TableSpec("f", size, width, counts=np.arange(size, 0, -1), reserved_ids=3, **options)


def test_worked_by_hand() -> None:
    """100 rows, half of them exclusive: ids 0 .. 49 read their own rows, id 50 hashes into rows 50 .. 99."""
    table = build(falling(1000), num_embeddings=100)
    assert table.address(torch.tensor([0, 49])).tolist() == [[0], [49]]
    ids = torch.tensor([50, 999])
    assert table.address(ids)[:, 0].tolist() == (hash_rows(ids, salt("f", 0, 7), 50) + 50).tolist()
    assert table.decode([torch.tensor([[3.0, 4.0]])], torch.tensor([50])).tolist() == [[3.0, 4.0]]


def test_exclusive_rows_are_exclusive_and_shared_rows_evenly_filled() -> None:
    table = build(falling(50_100), num_embeddings=200)
    users = torch.bincount(table.address(torch.arange(50_100))[:, 0], minlength=200)
    assert (users[:100] == 1).all()
    assert abs(((users[100:] - 500) ** 2 / 500).sum().item() - 99) < 4 * (2 * 99) ** 0.5


def test_a_grown_vocabulary_gives_its_rows_to_the_frequent_ids() -> None:
    counts = np.concatenate([np.arange(1000, 0, -1), [5000] * 20])  # the last 20 came later
    table = build(TableSpec("f", 1020, 8, counts=counts, reserved_ids=3), ratio=0.5)
    rows = table.address(torch.arange(1020))[:, 0]
    assert rows[:3].tolist() == [0, 1, 2] and rows[1000:].tolist() == list(range(3, 23))
    assert rows[3] == 23
    assert table.slots[0].bytes + table.get_buffer("rank.ranks").nbytes <= 0.5 * 1020 * 8 * 4
    assert [name for name, _ in build(falling(1000)).named_buffers()] == ["salts"]


def test_reserved_ids_have_rows_of_their_own() -> None:
    table = build(falling(1000), num_embeddings=10, exact_share=0)
    assert table.address(torch.arange(3)).flatten().tolist() == [0, 1, 2]
    assert table.address(torch.arange(3, 1000)).min() == 3


def test_first_order_weights_are_treated_alike() -> None:
    table = build(falling(1000, 1, linear=True), ratio=0.1)
    assert (table.slots[0].name, table.slots[0].num_embeddings) == ("f.linear", 100)


def test_a_feature_that_would_not_shrink_keeps_its_exact_table() -> None:
    assert isinstance(build(falling(1000), num_embeddings=1000), FullTable)
    assert isinstance(build(falling(100), exact_below=100), FullTable)


def test_bad_settings() -> None:
    with pytest.raises(ConfigError, match="feature 'f': table 'adaptive' needs the training count of every id"):
        build(TableSpec("f", 1000, 8))
    with pytest.raises(ConfigError, match="feature 'f' has no vocabulary, and table 'adaptive' needs its size"):
        build(TableSpec("f", None, 8))
    with pytest.raises(ValueError, match="num_embeddings and ratio are both given"):
        AdaptiveConfig(num_embeddings=10, ratio=0.5)
