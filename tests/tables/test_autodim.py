"""AutoDim: candidates, what the search weighs, the width it settles on, and what is served."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from recembed.errors import ConfigError
from recembed.rows import SGD, Init, PlainStore
from recembed.tables import AutoDimConfig, AutoDimTable, FullTable, ServedTable, TableSpec
from recembed.tables.projected import ProjectedRows


def build(ids: int = 1000, width: int = 8, **options: Any) -> tuple[AutoDimTable, PlainStore]:
    spec = TableSpec("f", ids, width, Init(scale=0.5))
    table = AutoDimConfig.model_validate({"exact_below": 0} | options).build([spec], 0)["f"]
    assert isinstance(table, AutoDimTable)
    return table, PlainStore(list(table.slots), optimizer=SGD(learning_rate=0.1))


def read(table: AutoDimTable, store: PlainStore, ids: Tensor) -> Tensor:
    return table.decode([store(table.address(ids).squeeze(-1), table.embedding_dim)], ids)


def by_hand(**options: Any) -> tuple[AutoDimTable, PlainStore]:
    """Two candidates of a table 2 wide; the narrow one projects its one number by (3, 4)."""
    table, store = build(100, 2, widths=(1,), **options)
    with torch.no_grad():
        table.projections[0].copy_(torch.tensor([[3.0, 4.0]]))
        table.scale.fill_(2.0)
    store.rows("f")[:2] = torch.tensor([[1.0, 10.0], [-1.0, 30.0]])
    return table, store


def test_worked_by_hand() -> None:
    """Settled on width 1, row (1, 10) is 1 * (3, 4); settled on width 2 it is itself."""
    table, store = by_hand()
    with torch.no_grad():
        table.preferences.copy_(torch.tensor([1.0, 0.0]))
    found = table.settle(store)
    assert found["width"] == 1 and found["preference"] == pytest.approx(1 / (1 + math.exp(-1)))
    assert read(table.eval(), store, torch.tensor([0, 1])).tolist() == [[3.0, 4.0], [-3.0, -4.0]]
    with torch.no_grad():
        table.preferences.copy_(torch.tensor([0.0, 1.0]))
    assert table.settle(store)["width"] == 2
    assert read(table, store, torch.tensor([0, 1])).tolist() == [[1.0, 10.0], [-1.0, 30.0]]


def test_a_search_step_worked_by_hand() -> None:
    """Each number over its root mean square, times scale 2: (2, 2) for both candidates, apart from sqrt(500) for 10."""
    table, store = by_hand()
    with torch.no_grad():
        table.preferences.copy_(torch.tensor([50.0, 0.0]))  # the noise cannot turn this round
    torch.testing.assert_close(read(table, store, torch.tensor([0, 1])), torch.tensor([[2.0, 2.0], [-2.0, -2.0]]))
    with torch.no_grad():
        table.preferences.copy_(torch.tensor([0.0, 50.0]))
    second = 2 * torch.tensor([[1.0, 10 / 500**0.5], [-1.0, 30 / 500**0.5]])
    torch.testing.assert_close(read(table, store, torch.tensor([0, 1])), second)


def test_no_candidate_wins_by_its_size() -> None:
    """Rows a hundred times larger in their second half give the same search vectors to the wide candidate."""
    table, store = build(widths=(4,))
    ids = torch.arange(1000)
    before = read(table, store, ids)
    assert before.pow(2).mean().sqrt().item() == pytest.approx(table.scale.item(), rel=0.6)
    with torch.no_grad():
        table.preferences.copy_(torch.tensor([0.0, 50.0]))
    small = read(table, store, ids)
    store.rows("f")[:, 4:] *= 100
    torch.testing.assert_close(read(table, store, ids), small, rtol=1e-4, atol=1e-4)


def test_candidates_share_the_first_numbers_of_a_row() -> None:
    """A settled width reads and moves its own numbers alone."""
    table, store = build(widths=(2, 4))
    with torch.no_grad():
        table.preferences.copy_(torch.tensor([0.0, 1.0, 0.0]))
    assert table.settle(store)["width"] == 4
    before = store.rows("f").clone()
    read(table, store, torch.tensor([3])).sum().backward()
    moved = store.rows("f") != before
    assert moved[3].tolist() == [True] * 4 + [False] * 4 and moved.sum() == 4
    store.rows("f")[:, 4:] = 7.0
    torch.testing.assert_close(read(table, store, torch.tensor([5])), before[5:6, :4] @ table.projections[1])


def test_the_preferences_follow_the_loss() -> None:
    """The target lives in the last two numbers of the rows: only the full width can see it."""
    table, store = build(200, 4, widths=(2,))
    ids = torch.arange(200)
    target = store.rows("f")[:, 2:].sum(1)
    (preferences,) = table.search_parameters()
    optimizer = torch.optim.Adam([preferences], lr=0.1)
    for _ in range(60):
        vectors = read(table, store, ids)
        (vectors[:, 2:].sum(1) - target).square().mean().backward(inputs=[preferences])
        optimizer.step()
        optimizer.zero_grad()
    assert table.settle(store)["width"] == 4 and preferences[1] > preferences[0] + 1


def test_gumbel_noise_has_its_mean_and_variance_and_follows_the_lookup() -> None:
    table, store = build(widths=(2, 4))
    drawn = []
    for lookup in range(3000):
        table.get_buffer("lookups").fill_(lookup)
        drawn.append(table._gumbel())
    noise = torch.stack(drawn).flatten()
    assert noise.mean().item() == pytest.approx(0.5772, abs=0.05)
    assert noise.var().item() == pytest.approx(math.pi**2 / 6, abs=0.12)
    other, _ = build(widths=(2, 4))
    first = [read(table_, store, torch.arange(9)) for table_ in (other, build(widths=(2, 4))[0])]
    assert torch.equal(*first)
    assert not torch.equal(first[0], read(other, store, torch.arange(9)))


def test_evaluation_has_no_noise_and_a_row_alone_is_the_same() -> None:
    table, store = build(widths=(2,))
    for _ in range(200):
        read(table, store, torch.arange(1000))
    trained = read(table, store, torch.arange(1000)).detach()
    table.eval()
    together = read(table, store, torch.arange(1000)).detach()
    torch.testing.assert_close(read(table, store, torch.tensor([7])), together[7:8])
    assert torch.equal(together, read(table, store, torch.arange(1000)).detach())
    assert together.norm().item() == pytest.approx(trained.norm().item(), rel=0.5)
    assert read(table.train(), store, torch.arange(0)).shape == (0, 8)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_compact_gives_the_settled_vectors_in_the_planned_bytes(place: int) -> None:
    table, store = build(widths=(2, 4))
    with torch.no_grad():
        table.preferences[place] = 1.0
    table.settle(store)
    served, width = table.compact(store), (2, 4, 8)[place]
    assert isinstance(served, ProjectedRows if place < 2 else ServedTable)
    ids = torch.tensor([[0, 5], [999, 5]])
    expected = table.eval().decode([store.rows("f")[ids]], ids)
    torch.testing.assert_close(served.decode([], ids), expected)
    assert served.overhead_bytes == 4 * (1000 * width + (8 * width if place < 2 else 0))
    assert torch.linalg.matrix_rank(served.decode([], torch.arange(1000))) <= width


def test_settling_stays_within_the_ratio() -> None:
    """Of 8,000 numbers 0.51 are 4,080: 1000 * 4 + 4 * 8 = 4,032 fit, whatever is preferred."""
    table, store = build(ratio=0.51)
    assert table.widest == 4
    assert sum(table.served_rows.values()) + table.served_overhead_bytes == 4 * 4032
    with torch.no_grad():
        table.preferences.copy_(torch.tensor([1.0, 2.0, 9.0]))
    assert table.settle(store)["width"] == 4
    with torch.no_grad():
        table.preferences.copy_(torch.tensor([3.0, 2.0, 9.0]))
    assert table.settle(store)["width"] == 2  # the preferred one of those that fit


def test_features_share_the_ratio() -> None:
    specs = [TableSpec("small", 50, 16), TableSpec("large", 5000, 16), TableSpec("middle", 500, 16)]
    for ratio in (0.2, 0.35, 0.6, 1.0):
        tables = AutoDimConfig(ratio=ratio, exact_below=60).build(specs, 0)
        assert isinstance(tables["small"], FullTable)
        served = sum(sum(table.served_rows.values()) + table.served_overhead_bytes for table in tables.values())
        assert 0.5 * ratio * 4 * 16 * 5550 < served <= ratio * 4 * 16 * 5550
    assert tables["large"].widest == 16
    smaller = AutoDimConfig(ratio=0.35, exact_below=60).build(specs, 0)
    assert [smaller[name].widest for name in ("large", "middle")] == [4, 4]


def test_candidates_that_would_not_shrink_are_left_out() -> None:
    """Of 12 ids 8 wide, 4 numbers a row and their projection are 80 of 96 numbers; of 6 ids they are 56 of 48."""
    assert build(12)[0].widths == (2, 4, 8) and build(6)[0].widths == (2, 8)
    tables = AutoDimConfig(widths=(4,), exact_below=0).build([TableSpec("f", 6, 8)], 0)
    assert isinstance(tables["f"], FullTable)


@pytest.mark.parametrize(("ratio", "rows"), [(None, 1000), (0.25, 1000), (0.1, 400)])
def test_first_order_weights_are_exact_until_the_ratio_is_below_a_quarter(ratio: float | None, rows: int) -> None:
    tables = AutoDimConfig(ratio=ratio).build([TableSpec("f", 1000, 1, linear=True)], 0)
    assert tables["f"].slots[0].num_embeddings == rows and tables["f"].reads == "ids"


def test_what_was_settled_survives_a_round_trip() -> None:
    table, store = build()
    with torch.no_grad():
        table.preferences[1] = 1.0
    table.settle(store)
    fresh, _ = build()
    fresh.load_state_dict(table.state_dict())
    ids = torch.arange(20)
    assert torch.equal(read(fresh.eval(), store, ids), read(table.eval(), store, ids))


def test_bad_settings() -> None:
    table, store = build()
    with pytest.raises(ConfigError, match="feature 'f': autodim has chosen no width yet; run a stage with do: settle"):
        table.compact(store)
    with pytest.raises(ConfigError, match="widths holds 16: expected at most embedding_dim = 8; leave it out"):
        build(widths=(4, 16))
    with pytest.raises(ConfigError, match=r"ratio = 0.1: the narrowest widths take 0.2520 of the exact tables' bytes"):
        build(ratio=0.1)
    with pytest.raises(ConfigError, match="feature 'f' has no vocabulary, and table 'autodim' needs its size"):
        AutoDimConfig().build([TableSpec("f", None, 8)], 0)
