"""Deep hash embeddings: inputs in range and even, vectors that do not depend on their batch, sizes that fit."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recembed.errors import ConfigError
from recembed.hashing import MISSING_KEY, mix64, salt
from recembed.rows import Init
from recembed.tables import DeepHashConfig, DeepHashTable, FullTable, HashedTable, Table, TableSpec

SMALL = {"hashes": 16, "layers": 2}


def build(size: int | None, width: int = 8, *, linear: bool = False, init: Init | None = None, **options: Any) -> Table:
    config = DeepHashConfig.model_validate({"exact_below": 0} | SMALL | options)
    return config.build([TableSpec("f", size, width, init or Init(), linear=linear)], seed=3)["f"]


def network(size: int | None = 10_000, **options: Any) -> DeepHashTable:
    table = build(size, **options)
    assert isinstance(table, DeepHashTable)
    return table


def test_inputs_worked_by_hand() -> None:
    """Input j of id 5 is the j-th SplitMix64 number of the stream that ``mix64(5 ^ salt)`` seeds, in exact integers."""
    start = int(mix64(torch.tensor([5 ^ salt("f", "deep_hash", 3)]))[0])
    for j in range(3):
        state = (start + (j + 1) * 0x9E3779B97F4A7C15) % 2**64
        mixed = int(mix64(np.array([state - 2**64 if state >= 2**63 else state]))[0])
        expected = ((mixed >> 40) + 0.5) / 2**23
        assert network(hidden=4).hash_values(torch.tensor([5]))[0, j].item() == expected


def test_a_network_worked_by_hand() -> None:
    """One hidden layer of 2: the normalised values are 1 and -1 whatever they were, so mish of them is what comes out."""
    table = network(hashes=1, layers=1, hidden=2, width=1)
    with torch.no_grad():
        table.weights[0].copy_(torch.tensor([[5.0], [5.0]]))
        table.biases[0].copy_(torch.tensor([100.0, -100.0]))
        table.weights[1].copy_(torch.tensor([[2.0, 1.0]]))
        table.biases[1].fill_(0.5)
    assert table.decode([], torch.tensor([7])).item() == pytest.approx(2 * 0.865098 - 0.303401 + 0.5, abs=1e-5)


def test_inputs_are_even_apart_and_in_range() -> None:
    values = network(hidden=4).hash_values(
        torch.cat([torch.arange(20_000), torch.tensor([2**62, -(2**62), MISSING_KEY])])
    )
    assert values.abs().max() < 1
    assert values.mean(0).abs().max() < 5 * 3**-0.5 / 20_000**0.5
    assert (values.square().mean(0) - 1 / 3).abs().max() < 0.012
    between = torch.corrcoef(values.T) - torch.eye(16)
    assert between.abs().max() < 5 / 20_000**0.5


def test_a_vector_does_not_depend_on_its_batch() -> None:
    table = network(hidden=8).train()
    together = table.decode([], torch.arange(50))
    for place in (0, 17, 49):
        torch.testing.assert_close(table.decode([], torch.tensor([place]))[0], together[place])


@pytest.mark.parametrize("law", ["normal", "uniform"])
def test_vectors_start_at_the_scale_of_a_plain_row(law: Any) -> None:
    table = network(10**6, hashes=64, hidden=128, init=Init(0.02, law), width=32)
    found = table.decode([], torch.arange(2000)).std().item()
    assert found == pytest.approx(0.02 / (3**0.5 if law == "uniform" else 1), rel=0.15)


@given(st.integers(500, 10**6), st.integers(1, 64), st.integers(1, 4), st.floats(0.05, 0.9))
def test_the_network_is_the_largest_within_the_ratio(size: int, hashes: int, layers: int, ratio: float) -> None:
    config = DeepHashConfig(hashes=hashes, layers=layers, ratio=ratio)
    hidden = config._solve(TableSpec("f", size, 16))
    budget = ratio * size * 16
    assert config._words(hidden, 16) <= budget < config._words(hidden + 1, 16)


def test_the_formula_is_the_bytes_taken() -> None:
    table = network(hidden=12)
    words = 12 * 17 + 12 * 13 + 2 * 2 * 12 + 8 * 13
    assert table.overhead_bytes == 4 * words + 8


def test_equal_seeds_and_names_make_equal_networks() -> None:
    first, again = network(hidden=4), network(hidden=4)
    assert torch.equal(first.decode([], torch.arange(9)), again.decode([], torch.arange(9)))
    other = DeepHashConfig(hidden=4, exact_below=0, **SMALL).build([TableSpec("g", 10_000, 8)], seed=3)["g"]
    assert not torch.equal(first.decode([], torch.arange(9)), other.decode([], torch.arange(9)))


def test_first_order_weights_and_keys() -> None:
    linear = build(10_000, 1, linear=True, ratio=0.1)
    assert isinstance(linear, HashedTable) and (linear.reads, linear.slots[0].num_embeddings) == ("ids", 1000)
    assert (build(None, hidden=4).reads, build(None, 1, linear=True, hidden=4).reads) == ("keys", "keys")


def test_a_feature_that_would_not_shrink_keeps_its_exact_table() -> None:
    assert isinstance(build(50, hidden=64), FullTable)
    assert isinstance(build(100, hidden=1, exact_below=100), FullTable)


def test_the_smallest_network_serves_where_even_that_is_above_the_ratio() -> None:
    table = build(1000, hashes=1024, ratio=0.1)  # 800 numbers
    assert isinstance(table, DeepHashTable) and [len(bias) for bias in table.biases] == [1, 1, 8]
    assert isinstance(build(100, hashes=1024, ratio=0.1), FullTable)


def test_bad_settings() -> None:
    with pytest.raises(ConfigError, match="feature 'f' has no vocabulary, and table 'deep_hash' needs its size"):
        build(None)
    with pytest.raises(ValueError, match="hidden and ratio are both given"):
        DeepHashConfig(hidden=10, ratio=0.5)
