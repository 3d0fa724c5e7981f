"""A byte budget solves the size of every method."""

import re
from typing import Any

import pytest

from recembed.embedding import EmbeddingConfig, FeatureEmbedding, embedding_plan
from recembed.embedding.config import parse_bytes
from recembed.errors import ConfigError
from recembed.tables import TABLES
from tests.embedding.fixtures import SIZES, fitted

IDS = sum(SIZES.values()) + 3 * len(SIZES)  # padding, missing and one out-of-vocabulary bucket each
EXACT = 4 * IDS * (8 + 1)  # vectors of 8 and first-order weights
SIZED: dict[str, dict[str, Any]] = {
    "hashed": {"kind": "hashed"},
    "multiplexed": {"kind": "multiplexed", "exact_below": 20},
    "compositional": {"kind": "compositional", "exact_below": 20},
    "mixed_dimension": {"kind": "mixed_dimension", "exact_below": 20},
    "tensor_train": {"kind": "tensor_train", "exact_below": 20},
    "robe": {"kind": "robe", "exact_below": 20},
    "adaptive": {"kind": "adaptive", "exact_below": 20},
}


def build(**settings: Any) -> FeatureEmbedding:
    config = {"embedding_dim": 8, "row_store": "torch"} | settings
    return FeatureEmbedding(fitted(), EmbeddingConfig.model_validate(config), linear=True)


@pytest.mark.parametrize("kind", SIZED)
@pytest.mark.parametrize("share", [0.6, 0.35])
def test_served_bytes_stay_below_the_budget_and_near_it(kind: str, share: float) -> None:
    embedding = build(table=SIZED[kind], ratio=share)
    assert embedding.served_bytes <= share * EXACT
    assert embedding.served_bytes > 0.6 * share * EXACT  # sizes are whole rows, ranks and widths
    assert embedding.compact().bytes == embedding.served_bytes


def test_bytes_and_share_mean_the_same() -> None:
    by_bytes = build(table="hashed", embedding_budget=f"{0.5 * EXACT / 1000} kB")
    assert by_bytes.served_bytes == build(table="hashed", ratio=0.5).served_bytes


def test_exact_tables_that_fit_stay_exact() -> None:
    assert build(table="hashed", ratio=1.0).served_bytes == EXACT == build(table="full").served_bytes


def test_other_features_pay_for_a_feature_of_fixed_size() -> None:
    features = {"user": {"table": "full"}}
    embedding = build(table="hashed", features=features, ratio=0.7)
    assert embedding.tables["user"].slots[0].num_embeddings == SIZES["user"] + 3
    assert embedding.served_bytes <= 0.7 * EXACT < build(table="hashed", features=features).served_bytes * 1.5


def test_an_impossible_budget_says_what_the_smallest_is() -> None:
    with pytest.raises(ConfigError, match=r"embedding_budget = 900: 900 bytes are fewer than the smallest .*'hashed'"):
        build(table="hashed", embedding_budget=900, features={"user": {"table": "full"}})
    with pytest.raises(ConfigError, match=r"smallest tables that 'full' can make here, 27,[0-9]{3} bytes") as caught:
        build(table="full", ratio=0.5)
    assert str(caught.value).endswith(
        "lower embedding_dim, or choose a method without rows per id, such as 'multiplexed'"
    )
    with pytest.raises(ConfigError, match=r"raise the budget, or lower embedding_dim$"):
        build(table="multiplexed", embedding_budget=20)


def test_a_share_needs_exact_tables_to_be_a_share_of() -> None:
    config = EmbeddingConfig(table={"kind": "hashed", "num_embeddings": 90}, ratio=0.2, row_store="torch")
    words = r"embeddings\.ratio = 0\.2: feature 'item' has no vocabulary.*or give embedding_budget in bytes"
    with pytest.raises(ConfigError, match=words):
        FeatureEmbedding(fitted({name: size for name, size in SIZES.items() if name != "item"}), config)


def test_probes_of_a_feature_that_is_not_there() -> None:
    table = {"kind": "multiplexed", "probes": {"usr": 2}, "row_dim": 8}
    with pytest.raises(
        ConfigError, match="table 'multiplexed': probes: 'usr' is not in the schema; did you mean 'user'"
    ):
        build(table=table)


SMALL = sorted({k for k, config in TABLES.items() if "ratio" in config.model_fields} - {"autodim", "mixed_dimension"})
LARGE = dict.fromkeys(("user", "item"), 10_000) | {"day": 7, "genres": 90}


@pytest.mark.parametrize("kind", SMALL)
def test_every_method_that_can_is_sized_for_a_twentieth(kind: str) -> None:
    config = EmbeddingConfig(embedding_dim=32, table=kind, ratio=0.05, row_store="torch")
    embedding = FeatureEmbedding(fitted(LARGE), config, linear=True, device="meta")
    exact = 4 * 33 * (sum(LARGE.values()) + 3 * len(LARGE))
    assert 0.025 * exact < embedding.served_bytes <= 0.05 * exact


@pytest.mark.parametrize(("kind", "smallest"), [("mixed_dimension", 1 / 33), ("autodim", 2 / 33)])
def test_methods_that_narrow_rows_end_at_the_narrowest(kind: str, smallest: float) -> None:
    config = EmbeddingConfig(embedding_dim=32, table=kind, ratio=0.01, row_store="torch")
    with pytest.raises(ConfigError, match=r"smallest tables that .* can make here, ([0-9,]+) bytes") as caught:
        FeatureEmbedding(fitted(LARGE), config, linear=True, device="meta")
    found = int(re.search(r"here, ([0-9,]+) bytes", str(caught.value))[1].replace(",", ""))
    exact = 4 * 33 * (sum(LARGE.values()) + 3 * len(LARGE))
    assert smallest < found / exact < smallest * 1.25


def test_small_features_are_compressed_where_the_budget_needs_it() -> None:
    assert build(table="hashed", ratio=0.2).served_bytes <= 0.2 * EXACT
    tight = build(table="compositional", ratio=0.15)
    assert tight.served_bytes <= 0.15 * EXACT and len(tight.tables["genres"].slots) == 2  # 43 ids, below 100
    assert len(build(table="compositional", ratio=0.9).tables["genres"].slots) == 1
    with pytest.raises(ConfigError, match="lower exact_below"):
        build(table={"kind": "compositional", "exact_below": 100}, ratio=0.02)


@pytest.mark.parametrize("table", ["compositional", {"kind": "matryoshka", "table": "multiplexed"}])
def test_a_config_read_back_gives_the_same_tables(table: Any) -> None:
    config = EmbeddingConfig.model_validate({"embedding_dim": 8, "table": table, "ratio": 0.15, "row_store": "torch"})
    written = EmbeddingConfig.model_validate(config.model_dump(mode="json"))
    sizes = [FeatureEmbedding(fitted(), each, linear=True, device="meta").served_bytes for each in (config, written)]
    assert sizes[0] == sizes[1] <= 0.15 * EXACT
    given = EmbeddingConfig.model_validate(config.model_dump(mode="json") | {"table": SIZED["compositional"]})
    assert given.model_dump(mode="json")["table"]["exact_below"] == 20


def test_sizes_in_words() -> None:
    assert [parse_bytes(size) for size in ("158 kB", "2MiB", 7, "1_000")] == [158_000, 2 * 2**20, 7, 1000]
    for wrong in ("20 MBit", "many", "-3 kB"):
        with pytest.raises(ValueError, match="is no size: expected a number and a unit, such as '20 MB'"):
            parse_bytes(wrong)


def test_the_plan_adds_up() -> None:
    embedding = build(table=SIZED["multiplexed"], features={"item": {"table": "full"}}, ratio=0.8)
    plan = embedding_plan(embedding)
    assert plan["table"].to_list() == [
        f"{n}{end}" for end in ("", ".linear") for n in ("user", "item", "day", "genres")
    ]
    assert plan["served_bytes"].sum() == embedding.served_bytes
    assert plan["trained_bytes"].sum() == embedding.bytes
    assert plan["optimizer_bytes"].sum() == embedding.store.optimizer_bytes
    assert plan["exact_bytes"].sum() == EXACT
    assert plan["id_map_bytes"].to_list() == [0, 12 * 300, 12 * 7, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_a_budget_buys_more_rows_of_a_narrower_type(dtype: str) -> None:
    wide = build(table=SIZED["multiplexed"], ratio=0.25)
    narrow = build(table=SIZED["multiplexed"], ratio=0.25, served_dtype=dtype)
    assert narrow.served_bytes <= 0.25 * EXACT
    assert narrow.compact().bytes == narrow.served_bytes
    assert narrow.store.tables["multiplexed"].num_embeddings > 1.8 * wide.store.tables["multiplexed"].num_embeddings
