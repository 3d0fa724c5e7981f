"""ROBE: chunks of one ring, cut out where the hash says, shared by ids whose chunks overlap."""

from typing import Any

import pytest
import torch
from torch import Tensor

from recembed.errors import ConfigError
from recembed.hashing import hash_rows, mix64, salt
from recembed.rows import PlainStore
from recembed.tables import FullTable, RobeConfig, RobeTable, Table, TableSpec


def build(*sizes: int | None, width: int = 8, linear: bool = False, **options: Any) -> dict[str, Table]:
    specs = [TableSpec(f"f{i}", size, width, linear=linear) for i, size in enumerate(sizes)]
    return RobeConfig.model_validate({"exact_below": 0} | options).build(specs, seed=0)


def vectors(table: Table, array: Tensor, ids: Tensor) -> Tensor:
    rows = array.view(-1, table.slots[0].embedding_dim)
    addresses = table.address(ids)
    return table.decode([rows[addresses[..., i]] for i in range(len(table.slots))], ids)


@pytest.mark.parametrize("chunk", [1, 2, 4, 8])
def test_every_number_is_the_one_the_definition_names(chunk: int) -> None:
    """A slow loop over ``sign * array[(offset + i) % M]``, on an array that holds its own places."""
    table = build(1000, num_embeddings=6, chunk=chunk)["f0"]
    array = torch.arange(1.0, 49.0)
    ids = torch.arange(300)
    found = vectors(table, array, ids)
    for place in range(8):
        keys = ids ^ salt("f0", "chunk", place // chunk, 0)
        offset = hash_rows(ids, salt("f0", "chunk", place // chunk, 0), 48) + place % chunk
        assert torch.equal(found[:, place], array[offset % 48] * (1 - 2 * (mix64(keys) & 1)))


def test_overlapping_ids_share_numbers_with_their_signs() -> None:
    table = build(1000, num_embeddings=20)["f0"]
    assert isinstance(table, RobeTable)
    ids = torch.arange(1000)
    begin, sign = table.offsets(ids)[:, 0], table.signs(ids)[:, 0]
    first = 0
    other = int(((begin == begin[0] + 3) & (sign != sign[0])).nonzero()[0])
    store = PlainStore(table.slots, optimizer=None)
    found = vectors(table, store.rows("robe"), torch.tensor([first, other]))
    assert torch.equal(found[0, 3:], -found[1, :5])


def test_begin_and_sign_are_even_and_cover_the_ring() -> None:
    table = build(100_000, num_embeddings=10)["f0"]
    assert isinstance(table, RobeTable)
    ids = torch.arange(80_000)
    counts = torch.bincount(table.offsets(ids)[:, 0], minlength=80).double()
    assert abs(((counts - 1000) ** 2 / 1000).sum().item() - 79) < 4 * (2 * 79) ** 0.5
    assert abs(table.signs(ids).mean().item()) < 4 / 80_000**0.5


def test_the_length_of_the_array_does_not_depend_on_the_vocabulary() -> None:
    lengths = {build(size, num_embeddings=50)["f0"].slots[0].bytes for size in (1000, 100_000)}
    assert lengths == {50 * 8 * 4}


def test_lookups_per_id() -> None:
    assert [len(build(1000, num_embeddings=50, chunk=z)["f0"].slots) for z in (8, 4, 1)] == [2, 4, 8]


def test_a_ratio_counts_the_exact_tables() -> None:
    tables = build(10, 4000, 2000, ratio=0.25, exact_below=10)
    slots = {slot.name: slot for table in tables.values() for slot in table.slots}
    assert isinstance(tables["f0"], FullTable)
    assert sum(slot.bytes for slot in slots.values()) == pytest.approx(0.25 * 6010 * 8 * 4, abs=8 * 4)


def test_first_order_weights_and_keys() -> None:
    tables = build(1000, None, width=1, linear=True, num_embeddings=50)
    assert (tables["f0"].slots[0].name, tables["f0"].slots[0].num_embeddings) == ("robe.linear", 50)
    assert (tables["f0"].reads, tables["f1"].reads) == ("ids", "keys")


def test_an_array_that_would_not_be_smaller_is_not_built() -> None:
    assert all(isinstance(table, FullTable) for table in build(20, 30, num_embeddings=50).values())


def test_bad_settings() -> None:
    with pytest.raises(ConfigError, match="store 'robe': chunk = 3 does not divide embedding_dim = 8"):
        build(1000, num_embeddings=10, chunk=3)
    with pytest.raises(ConfigError, match="less than one chunk of 8; raise ratio, or lower exact_below"):
        build(90, 1000, ratio=0.05, exact_below=100)
    with pytest.raises(ConfigError, match="feature 'f0' has no vocabulary, and table 'robe' needs its size"):
        build(None)
