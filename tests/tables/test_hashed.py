"""Hash methods: the properties of the fact sheet, on small stores with known answers."""

import math

import numpy as np
import polars as pl
import pytest
import torch

from recembed.errors import ConfigError
from recembed.hashing import MISSING_KEY, hash_rows, salt
from recembed.schema.vocabulary import Vocabulary
from recembed.tables import FullTable, HashedConfig, MultiplexedConfig, TableSpec
from recembed.tables.collisions import collision_report


def specs(*sizes: int, width: int = 8) -> list[TableSpec]:
    return [TableSpec(f"f{i}", size, width) for i, size in enumerate(sizes)]


def test_a_probe_is_the_documented_hash() -> None:
    table = HashedConfig(num_embeddings=101, probes=2).build(specs(1000), seed=5)["f0"]
    keys = torch.tensor([17, -4])
    for probe in range(2):
        expected = hash_rows(keys, salt("f0", probe, 5), 100) + 1  # row 0 is the missing value's
        assert table.address(keys)[:, probe].tolist() == expected.tolist()


def test_a_missing_value_has_rows_of_its_own() -> None:
    tables = MultiplexedConfig(num_embeddings=64, probes=2).build(specs(1000, 1000), seed=0)
    missing = torch.tensor([MISSING_KEY])
    rows = [tables[name].address(missing)[0].tolist() for name in ("f0", "f1")]
    assert rows == [[0, 1], [2, 3]]
    known = torch.cat([tables[name].address(torch.arange(10_000)) for name in tables])
    assert known.min() == 4 and known.max() == 63


def test_same_value_in_two_features_goes_to_different_rows_at_chance_level() -> None:
    tables = MultiplexedConfig(num_embeddings=1002).build(specs(10_000, 10_000), seed=0)
    keys = torch.arange(20_000)
    equal = (tables["f0"].address(keys) == tables["f1"].address(keys)).float().mean().item()
    assert abs(equal - 1 / 1000) < 3 * (1 / 1000 / 20_000) ** 0.5


def test_salts_follow_names_not_the_order_of_registration() -> None:
    forward = MultiplexedConfig(num_embeddings=500).build(specs(1000, 1000), seed=0)
    backward = MultiplexedConfig(num_embeddings=500).build(specs(1000, 1000)[::-1], seed=0)
    keys = torch.arange(100)
    assert torch.equal(forward["f1"].address(keys), backward["f1"].address(keys))


def test_consecutive_ids_fill_the_buckets_evenly() -> None:
    table = HashedConfig(num_embeddings=257).build(specs(100_000), seed=1)["f0"]
    counts = torch.bincount(table.address(torch.arange(51_200))[:, 0], minlength=257)[1:].double()
    chi_square = ((counts - 200) ** 2 / 200).sum().item()
    assert abs(chi_square - 255) < 4 * (2 * 255) ** 0.5


def test_concat_of_k_probes_is_k_rows_side_by_side() -> None:
    table = MultiplexedConfig(num_embeddings=100, probes=3, row_dim=4).build(specs(1000, width=12), seed=0)["f0"]
    rows = [torch.full((2, 4), float(i)) for i in range(3)]
    assert table.embedding_dim == 12
    assert table.decode(rows, torch.zeros(2))[0].tolist() == [0.0] * 4 + [1.0] * 4 + [2.0] * 4


@pytest.mark.parametrize(("combine", "expected"), [("sum", 6.0), ("mean", 2.0)])
def test_sum_and_mean_keep_the_width(combine: str, expected: float) -> None:
    table = HashedConfig(num_embeddings=100, probes=3, combine=combine).build(specs(1000), seed=0)["f0"]
    rows = [torch.full((1, 8), float(i)) for i in (1, 2, 3)]
    assert table.decode(rows, torch.zeros(1)).tolist() == [[expected] * 8]


def test_probes_by_feature_set_the_effective_width() -> None:
    config = MultiplexedConfig(num_embeddings=100, probes={"f1": 3}, row_dim=4)
    tables = config.build(specs(1000, 1000), seed=0)
    assert (tables["f0"].embedding_dim, tables["f1"].embedding_dim) == (4, 12)


def test_tiny_features_stay_exact_within_the_budget() -> None:
    tables = MultiplexedConfig(ratio=0.25, exact_below=10).build(specs(3, 4000, 2000), seed=0)
    assert isinstance(tables["f0"], FullTable)
    slots = {slot.name: slot for table in tables.values() for slot in table.slots}
    assert sum(slot.bytes for slot in slots.values()) == pytest.approx(0.25 * 6003 * 8 * 4, abs=8 * 4)


def test_a_feature_that_would_not_shrink_keeps_its_exact_table() -> None:
    assert isinstance(HashedConfig(num_embeddings=50).build(specs(40), seed=0)["f0"], FullTable)


def test_the_published_baseline_hashes_every_feature_at_the_bytes_of_the_exact_tables() -> None:
    tables = HashedConfig(ratio=1.0, keep_exact=False).build(specs(4000, 5), seed=0)
    rows = {name: table.slots[0].num_embeddings for name, table in tables.items()}
    assert rows == {"f0": 4000, "f1": 5}
    taken = [len(tables[name].address(torch.arange(size)).unique()) for name, size in (("f0", 4000), ("f1", 5))]
    assert abs(taken[0] - 4000 * (1 - math.exp(-1))) < 100, (
        "as many distinct rows as balls in as many bins leave filled"
    )
    assert taken[1] < 5, "with the missing value's row taken off, five ids do not fit"
    kept = HashedConfig(ratio=1.0).build(specs(4000, 5), seed=0)
    assert all(isinstance(table, FullTable) for table in kept.values())


def test_a_tiny_feature_that_is_hashed_keeps_one_row_for_values() -> None:
    table = HashedConfig(ratio=0.1, keep_exact=False).build(specs(5), seed=0)["f0"]
    assert table.address(torch.tensor([1, 2, MISSING_KEY]))[:, 0].tolist() == [1, 1, 0]


def test_size_classes_are_stores_of_their_own() -> None:
    wide = MultiplexedConfig(store="wide", num_embeddings=100).build(specs(1000, width=16), seed=0)["f0"]
    narrow = MultiplexedConfig(store="narrow", num_embeddings=100).build(specs(1000, width=4), seed=0)["f0"]
    assert (wide.slots[0].name, narrow.slots[0].name) == ("wide", "narrow")


def test_within_feature_collisions_match_the_formula() -> None:
    sizes = (3000, 1000)
    vocabularies = {
        f"f{i}": Vocabulary.build(pl.Series(range(n)), np.arange(n), np.full(n, 2)) for i, n in enumerate(sizes)
    }
    tables = MultiplexedConfig(num_embeddings=2002).build(specs(*sizes), seed=0)
    report = collision_report(tables, vocabularies)
    for n, line in zip(sizes, report.to_dicts(), strict=True):
        chance = 1 - (1 - 1 / 2000) ** (n - 1)
        assert line["expected_within"] == pytest.approx(chance)
        assert abs(line["within"] - chance) < 3 * (chance * (1 - chance) / n) ** 0.5
        assert line["across"] > 0.3


def test_damage_counts_the_traffic_under_a_heavier_id() -> None:
    vocabulary = Vocabulary.build(pl.Series(range(200)), np.arange(200), np.array([9] * 100 + [1] * 100))
    tables = MultiplexedConfig(num_embeddings=2, exact_below=0).build(specs(200), seed=0)  # every id in one row
    (line,) = collision_report(tables, {"f0": vocabulary}).to_dicts()
    assert (line["within"], line["identical"], line["across"]) == (1.0, 1.0, 0.0)
    assert line["damage"] == pytest.approx(100 / 1000)


def test_bad_settings() -> None:
    with pytest.raises(ConfigError, match="probes = 3 does not divide embedding_dim = 8"):
        HashedConfig(num_embeddings=100, probes=3).build(specs(1000), seed=0)
    with pytest.raises(ConfigError, match=r"3 rows, of which 4 are reserved .* at least 5 rows"):
        MultiplexedConfig(num_embeddings=3, probes=2).build(specs(1000, 1000), seed=0)
    with pytest.raises(ConfigError, match="feature 'f0' has no vocabulary, and table 'hashed' needs its size"):
        HashedConfig().build([TableSpec("f0", None, 8)], seed=0)
