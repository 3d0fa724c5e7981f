"""Mixed dimensions: the power rule by hand, budgets with everything counted, blocks that leave each other alone."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recembed.errors import ConfigError
from recembed.rows import SGD, Init, PlainStore
from recembed.tables import FullTable, MixedDimensionConfig, Table, TableSpec
from recembed.tables.popularity import PopularityRank, popularity_order


def build(specs: list[TableSpec], **options: Any) -> dict[str, Table]:
    return MixedDimensionConfig.model_validate({"exact_below": 0} | options).build(specs, seed=0)


def zipf(size: int, name: str = "f", width: int = 16) -> TableSpec:
    return TableSpec(name, size, width, counts=(100_000 / np.arange(1, size + 1)).astype(np.int64))


def words(tables: dict[str, Table]) -> int:
    slots = {slot.name: slot for table in tables.values() for slot in table.slots}
    return sum(slot.bytes for slot in slots.values()) // 4 + sum(t.overhead_bytes for t in tables.values()) // 4


def test_the_power_rule_by_hand() -> None:
    """D = 16, temperature 0.2, sizes 10 .. 10**7: 16, 8, 8, 4, 4, 2, 1."""
    specs = [TableSpec(f"f{i}", 10**i, 16) for i in range(1, 8)]
    widths = [table.slots[0].embedding_dim for table in build(specs, temperature=0.2).values()]
    assert widths == [16, 8, 8, 4, 4, 2, 1]
    exact = [table.slots[0].embedding_dim for table in build(specs, temperature=0.2, power_of_two=False).values()]
    assert exact == [16, 10, 6, 4, 3, 2, 1]  # 16 * 10**(-0.2 * j), rounded


def test_temperature_zero_keeps_every_width() -> None:
    assert all(isinstance(table, FullTable) for table in build([zipf(10), zipf(9999, "g")], temperature=0).values())


def test_one_block_worked_by_hand() -> None:
    table = build([TableSpec("a", 1000, 2), TableSpec("b", 4000, 2)], temperature=0.5)["b"]
    with torch.no_grad():
        table.get_parameter("projection_0").copy_(torch.tensor([[2.0, -1.0]]))
    assert table.slots[0].embedding_dim == 1 and table.address(torch.tensor([7])).tolist() == [[7]]
    assert table.decode([torch.tensor([[3.0]])], torch.tensor([7])).tolist() == [[6.0, -3.0]]


def test_popularity_blocks_by_hand() -> None:
    """Counts 8 | 2 2 2 2: half of the traffic each; popularity 1/2 and 1/8, a quarter, so half the width."""
    spec = TableSpec("f", 50, 4, counts=np.array([80, *[2] * 40, *[0] * 9]))
    table = build([spec], blocks=2, temperature=0.19, power_of_two=False)["f"]  # 4 * 49 ** -0.19 = 1.9
    assert [(s.name, s.num_embeddings, s.embedding_dim) for s in table.slots] == [
        ("f.block_0", 2, 4),
        ("f.block_1", 50, 2),
    ]
    assert table.address(torch.tensor([0, 1, 49])).tolist() == [[1, 0], [0, 1], [0, 49]]
    with torch.no_grad():
        table.get_parameter("projection_1").copy_(torch.tensor([[1.0, 0.0, 2.0, 0.0], [0.0, 1.0, 0.0, 0.0]]))
    rows = [torch.full((2, 4), 7.0), torch.tensor([[5.0, 6.0], [5.0, 6.0]])]
    assert table.decode(rows, torch.tensor([0, 1])).tolist() == [[7.0] * 4, [5.0, 6.0, 10.0, 0.0]]


def test_a_frequent_id_never_has_a_narrower_row() -> None:
    table = build([zipf(20_000)], blocks=4, temperature=0.4)["f"]
    widths = [slot.embedding_dim for slot in table.slots]
    assert widths == sorted(widths, reverse=True) and len(set(widths)) == len(widths) > 1
    own = table.address(torch.arange(20_000))
    assert ((own > 0).sum(1) == 1).all()  # one block each
    assert [int((own[:, i] > 0).sum()) for i in range(len(widths))] == [s.num_embeddings - 1 for s in table.slots]


def test_the_gradient_stays_in_the_block_of_the_id() -> None:
    table = build([zipf(5000)], blocks=2, temperature=0.5)["f"]
    store = PlainStore(table.slots, optimizer=SGD(learning_rate=1.0))
    before = {slot.name: store.rows(slot.name).clone() for slot in table.slots}
    ids = torch.tensor([4000, 4999])
    addresses = table.address(ids)
    rows = [store(addresses[:, i] + store.first_row[s.name], s.embedding_dim) for i, s in enumerate(table.slots)]
    table.decode(rows, ids).sum().backward()
    moved = {name: (store.rows(name) != rows).any(1).nonzero()[:, 0].tolist() for name, rows in before.items()}
    assert moved == {"f.block_0": [], "f.block_1": addresses[:, 1].tolist()}


@settings(max_examples=40)
@given(
    st.lists(st.integers(50, 20_000), min_size=1, max_size=4),
    st.floats(0.12, 0.95),
    st.sampled_from([0.0, 0.3, 0.6]),
    st.sampled_from([1, 3]),
    st.booleans(),
)
def test_a_ratio_holds_with_everything_counted(
    sizes: list[int], ratio: float, temperature: float, blocks: int, power_of_two: bool
) -> None:
    specs = [zipf(size, f"f{i}") for i, size in enumerate(sizes)]
    options = {"temperature": temperature, "blocks": blocks, "power_of_two": power_of_two}
    exact = sum(sizes) * 16
    try:
        assert words(build(specs, ratio=ratio, **options)) <= ratio * exact
    except ConfigError as error:
        smallest = float(str(error).split("take ")[1].split()[0])
        assert smallest > ratio - 1e-4
        assert words(build(specs, ratio=min(1.0, smallest + 1e-4), **options)) <= (smallest + 1e-4) * exact


def test_a_larger_ratio_uses_more() -> None:
    specs = [zipf(10_000), zipf(3000, "g")]
    used = [words(build(specs, ratio=ratio, power_of_two=False)) / (13_000 * 16) for ratio in (0.2, 0.4, 0.8)]
    assert used == sorted(used) and all(r - 0.07 < u <= r for r, u in zip((0.2, 0.4, 0.8), used, strict=True))


def test_the_rank_of_a_materialised_table_is_its_width() -> None:
    table = build([TableSpec("a", 300, 16), TableSpec("b", 9000, 16)])["b"]
    store = PlainStore(table.slots, optimizer=None)
    vectors = table.decode([store.rows("b")], torch.arange(9000))
    assert torch.linalg.matrix_rank(vectors).item() == table.slots[0].embedding_dim < 16


@pytest.mark.parametrize("law", ["normal", "uniform"])
def test_vectors_start_at_the_scale_of_a_plain_row(law: Any) -> None:
    specs = [TableSpec(name, size, 64, Init(0.02, law)) for name, size in (("a", 300), ("b", 9000))]
    table = build(specs)["b"]
    vectors = table.decode([PlainStore(table.slots, optimizer=None).rows("b")], torch.arange(9000))
    assert vectors.std().item() == pytest.approx(0.02 / (3**0.5 if law == "uniform" else 1), rel=0.1)


def test_a_grown_vocabulary_is_ranked_by_count() -> None:
    """Ids 3 and 4 are known from the start; 5 came later and is the most frequent of them."""
    spec = TableSpec("f", 6, 8, counts=np.array([0, 1, 9, 4, 3, 7]), reserved_ids=3)
    order = popularity_order(spec, "mixed_dimension")
    assert order.tolist() == [0, 1, 2, 5, 3, 4]
    rank = PopularityRank(order)
    assert rank(torch.arange(6)).tolist() == [0, 1, 2, 4, 5, 3]
    fresh = PopularityRank(np.arange(6))
    assert fresh.state_dict() == {} and fresh(torch.arange(6)).tolist() == [0, 1, 2, 3, 4, 5]


def test_bytes_of_a_grown_vocabulary_count_its_ranks() -> None:
    counts = np.concatenate([100_000 // np.arange(1, 4001), [10_000] * 10]).astype(np.int64)
    tables = build([TableSpec("f", 4010, 16, counts=counts)], blocks=2, temperature=0.5, ratio=0.5)
    assert words(tables) <= 0.5 * 4010 * 16
    assert tables["f"].get_buffer("rank.ranks").shape == (4010,)
    popular = tables["f"].address(torch.arange(4000, 4010))
    assert (popular[:, 0] > 0).all()


def test_first_order_weights_and_small_features_stay_exact() -> None:
    (linear,) = build([TableSpec("f", 10_000, 1, linear=True)]).values()
    assert isinstance(linear, FullTable)
    assert isinstance(build([zipf(100), zipf(10_000, "g")], exact_below=100, temperature=1)["f"], FullTable)


def test_bad_settings() -> None:
    with pytest.raises(ConfigError, match=r"ratio = 0.05: the smallest widths take 0.0635 .* raise ratio"):
        build([TableSpec("f", 1000, 16)], ratio=0.05)
    with pytest.raises(ConfigError, match="feature 'f': table 'mixed_dimension' needs the training count of every id"):
        build([TableSpec("f", 1000, 16)], blocks=2)
    with pytest.raises(ConfigError, match="feature 'f' has no vocabulary"):
        build([TableSpec("f", None, 16)])
