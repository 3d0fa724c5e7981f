"""OptEmbed: the estimator, gates and widths of the supernet, what is settled, and what is served."""

from typing import Any

import pytest
import torch
from torch import Tensor

from recembed.embedding import EmbeddingConfig, FeatureEmbedding
from recembed.errors import ConfigError
from recembed.rows import SGD, PlainStore
from recembed.tables import FullTable, OptEmbedConfig, OptEmbedTable, ServedTable, TableSpec
from recembed.tables.kept_rows import SearchedRows
from recembed.tables.masked import MaskedTable
from recembed.tables.optembed import unit_step
from tests.embedding.fixtures import batch, fitted


def build(ids: int = 1000, width: int = 16, **options: Any) -> tuple[OptEmbedTable, PlainStore]:
    table = OptEmbedConfig.model_validate({"exact_below": 0} | options).build([TableSpec("f", ids, width)], 0)["f"]
    assert isinstance(table, OptEmbedTable)
    return table, PlainStore(list(table.slots), optimizer=SGD(learning_rate=0.1))


def read(table: OptEmbedTable, store: PlainStore, ids: Tensor) -> Tensor:
    rows = [
        store(places, slot.embedding_dim)
        for places, slot in zip(table.address(ids).unbind(-1), table.slots, strict=True)
    ]
    return table.decode(rows, ids)


def test_the_estimator() -> None:
    x = torch.tensor([0.0, 0.2, 0.4, 0.7, 1.01, -0.2, -0.7, -1.01], requires_grad=True)
    gates = unit_step(x)
    gates.sum().backward()
    assert gates.tolist() == [0.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0]  # at the threshold itself the gate is shut
    torch.testing.assert_close(x.grad, torch.tensor([2.0, 1.2, 0.4, 0.4, 0.0, 1.2, 0.4, 0.0]))


def test_worked_by_hand() -> None:
    """L1 norms are 7, 0.5, 1 and 3; above a threshold of 1 are rows 0 and 3; one number of each is served."""
    table, store = build(4, 2)
    assert table.threshold is not None
    table.threshold.data.fill_(1.0)
    store.rows("f").copy_(torch.tensor([[3.0, -4.0], [0.25, 0.25], [0.5, -0.5], [1.0, 2.0]]))
    table.eval()
    ids = torch.arange(4)
    assert read(table, store, ids).tolist() == [[3.0, -4.0], [0.0, 0.0], [0.0, 0.0], [1.0, 2.0]]
    table.choose_width(1)
    assert table.settle(store) == {"kept_rows": 2.0, "width": 1.0}
    served = table.compact(store)
    assert served.decode([], ids).tolist() == [[3.0, 0.0], [0.0, 0.0], [0.0, 0.0], [1.0, 0.0]]
    assert served.overhead_bytes == 4 * 4  # four numbers: less than three and a remap of eight bytes
    euclid, _ = build(4, 2, norm=2)
    assert euclid.eval().threshold is not None
    euclid.threshold.data.fill_(0.7)  # type: ignore[union-attr]
    assert (read(euclid, store, ids) != 0).any(1).tolist() == [True, False, True, True]  # 5, 0.35, 0.707, 2.24


def test_pruned_rows_are_zero_and_move_through_the_gate_only_near_the_threshold() -> None:
    table, _ = build(4, 2)
    assert table.threshold is not None
    table.threshold.data.fill_(2.0)
    rows = torch.tensor([[0.25, 0.25], [0.75, 0.75], [1.25, 1.25], [2.0, 2.0]], requires_grad=True)  # margins -1.5 ..
    vectors = table.decode([rows], torch.arange(4))
    assert (vectors[:2] == 0).all() and (vectors[2:, 0] != 0).all()  # a width of 1 at least
    vectors[:, 0].sum().backward()
    assert rows.grad is not None
    # margin -1.5: nothing; -0.5: 0.4 * 0.75 by each number's share in the norm; 0.5: besides 1 for itself; 2: 1 alone
    torch.testing.assert_close(rows.grad[:, 0], torch.tensor([0.0, 0.4 * 0.75, 1 + 0.4 * 1.25, 1.0]), rtol=0, atol=1e-6)
    torch.testing.assert_close(rows.grad[:, 1], torch.tensor([0.0, 0.3, 0.5, 0.0]), rtol=0, atol=1e-6)
    torch.testing.assert_close(table.threshold.grad, torch.tensor([-0.3 - 0.5]))


def test_higher_thresholds_keep_fewer_rows() -> None:
    kept = []
    for threshold in (-1.0, 0.0, 0.1, 0.12, 0.15, 0.3):
        table, store = build()
        assert table.threshold is not None
        table.threshold.data.fill_(threshold)
        kept.append(table.settle(store)["kept_rows"])
    assert kept[:2] == [1000, 1000] and kept[-1] == 0 and sorted(set(kept), reverse=True) == kept[1:]
    table, store = build()
    store.rows("f")[7] = 0.0
    table.settle(store)
    assert (~table.get_buffer("kept")).nonzero().tolist() == [[7]]  # a row of zeros is not above zero


def test_widths_are_drawn_evenly_and_anew_while_searching() -> None:
    table, store = build(1000, 8)
    ids = torch.arange(1000)
    drawn = [(read(table, store, ids) != 0).sum(1) for _ in range(4)]
    counts = torch.bincount(torch.cat(drawn), minlength=9)
    assert counts[0] == 0 and ((counts[1:] - 500.0) ** 2 / 500).sum() < 7 + 4 * 14**0.5
    assert not torch.equal(drawn[0], drawn[1])
    prefix = read(table, store, ids)
    widths = (prefix != 0).sum(1, keepdim=True)
    assert torch.equal(prefix, torch.where(torch.arange(8) < widths, store.rows("f"), 0.0))
    table.eval()
    assert torch.equal(read(table, store, ids), store.rows("f"))
    table.choose_width(3)
    assert (read(table, store, ids)[:, 3:] == 0).all() and (read(table, store, ids)[:, :3] != 0).all()
    table.settle(store)
    table.train()
    assert (read(table, store, ids) != 0).sum(1).unique().tolist() == [3] and table.take_losses() == []


def test_a_resumed_search_draws_the_same_widths() -> None:
    table, store = build()
    read(table, store, torch.arange(17))
    again, _ = build()
    again.load_state_dict(table.state_dict())
    assert torch.equal(read(table, store, torch.arange(9)), read(again, store, torch.arange(9)))


def test_the_penalty_raises_thresholds() -> None:
    table, store = build(alpha=0.5)
    assert table.threshold is not None
    table.threshold.data.fill_(1.0)
    read(table, store, torch.tensor([1, 2, 2]))
    (loss,) = table.take_losses()
    loss.backward()
    assert loss.item() == pytest.approx(0.5 * 0.36788, abs=1e-5)
    torch.testing.assert_close(table.threshold.grad, torch.tensor([-0.5 * 0.36788]), atol=1e-5, rtol=0)


def test_a_threshold_per_field_is_penalised_once_a_step_though_two_features_read_it() -> None:
    table, _ = build(alpha=0.5)
    for _ in range(2):
        table.decode([torch.ones(3, 16)], torch.arange(3))
    assert [float(loss.detach()) for loss in table.take_losses()] == [0.5]  # alpha * exp(-0)
    table.decode([torch.ones(3, 16)], torch.arange(3))
    assert len(table.take_losses()) == 1


def test_thresholds_per_id_are_penalised_once_per_id() -> None:
    table, store = build(alpha=0.5, thresholds="id", speed=2.0)
    store.rows("f.thresholds")[2] = 0.5
    read(table, store, torch.tensor([1, 2, 2]))
    (loss,) = table.take_losses()
    assert loss.item() == pytest.approx(0.5 * (1 + 0.36788), abs=1e-5)
    loss.backward()
    moved = store.rows("f.thresholds").flatten()
    assert moved[1] == pytest.approx(0.1 * 0.5 * 2) and moved[2] == pytest.approx(0.5 + 0.1 * 0.5 * 2 * 0.36788)
    assert moved.nonzero().flatten().tolist() == [1, 2]


def test_thresholds_per_id_prune_their_id() -> None:
    table, store = build(thresholds="id")
    store.rows("f.thresholds")[5] = 10.0
    assert table.settle(store)["kept_rows"] == 999 and not table.get_buffer("kept")[5]


def test_served_bytes_meet_the_ratio_and_the_best_rows_stay() -> None:
    for ratio, form in ((0.6, ServedTable), (0.02, SearchedRows)):
        table, store = build(ratio=ratio)
        margin = store.rows("f").abs().sum(1)
        rows = table.settle(store)["kept_rows"]
        kept = table.get_buffer("kept")
        served = table.compact(store)
        assert type(served) is form and margin[kept].min() >= margin[~kept].max()
        assert served.overhead_bytes == sum(table.served_rows.values()) <= ratio * 64_000
        assert served.overhead_bytes + 16 * 4 + 4 > ratio * 64_000  # one row more would not fit
        assert served.rows.numbers()[1:].numel() == rows * 16


def test_a_narrow_width_keeps_more_rows_in_the_same_bytes() -> None:
    counts = []
    for width in (16, 8, 4):
        table, store = build(ratio=0.3)
        table.choose_width(width)
        counts.append(table.settle(store)["kept_rows"])
        served = table.eval().compact(store)
        assert served.overhead_bytes <= 0.3 * 64_000
        assert served.rows.numbers().shape == ((counts[-1] + 1, width) if counts[-1] < 1000 else (1000, width))
        assert torch.equal(served.decode([], torch.arange(1000)), read(table, store, torch.arange(1000)))
    # 281 rows are found by search, (19200 - 64) / 68; 535 by a remap, (19172 - 2000) / 32 - 1; all take 16000 bytes
    assert counts == [281, 535, 1000]


def test_retraining_moves_only_what_is_served() -> None:
    table, store = build(ratio=0.3)
    table.choose_width(6)
    table.settle(store)
    kept = table.get_buffer("kept").clone()
    store.reset_parameters()
    initial, ids = store.rows("f").clone(), torch.arange(1000)
    for _ in range(3):
        read(table, store, ids).sin().sum().backward()
    moved = store.rows("f") != initial
    assert torch.equal(moved[:, 0], kept) and not moved[:, 6:].any() and table.threshold is not None
    assert torch.equal(table.compact(store).decode([], ids), read(table, store, ids))
    assert table.threshold.grad is None


def test_a_search_tells_rows_that_help_from_rows_that_do_not() -> None:
    """Ids below 200 carry the label, the others only noise: what the thresholds keep are the former."""
    settings = {
        "embedding_dim": 4,
        "table": {"kind": "optembed", "alpha": 0.02, "exact_below": 20},
        "row_store": "torch",
        "row_optimizer": {"kind": "adagrad", "learning_rate": 0.05},
        "l2": 0.02,
        "init": {"scale": 0.05, "law": "uniform"},
    }
    embedding = FeatureEmbedding(fitted(), EmbeddingConfig.model_validate(settings))
    table = embedding.tables["user"]
    assert isinstance(table, OptEmbedTable) and table.threshold is not None
    thresholds = [table.threshold]
    optimizer = torch.optim.SGD(thresholds, lr=0.1)
    for now in range(150):
        rows = batch(256, seed=now)
        user = rows.ids[:, 0]
        label = torch.where(
            user < 200, 2.0 * (user % 2) - 1, torch.randn(256, generator=torch.Generator().manual_seed(now))
        )
        optimizer.zero_grad()
        loss = torch.nn.functional.softplus(-label * embedding(rows).fields["user"].sum(1)).sum()
        (loss + torch.stack(table.take_losses()).sum()).backward()
        optimizer.step()
    assert table.threshold.item() > 0
    table.settle(embedding.store)
    kept = table.get_buffer("kept")
    assert kept[3:200].float().mean() > 0.9 and kept[200:].float().mean() < 0.5


def test_first_order_weights_are_exact_or_pruned_by_size() -> None:
    spec = TableSpec("f", 1000, 1, linear=True)
    assert isinstance(OptEmbedConfig().build([spec], 0)["f"], FullTable)
    assert isinstance(OptEmbedConfig(ratio=0.1).build([spec], 0)["f"], MaskedTable)


def test_bad_settings() -> None:
    with pytest.raises(ConfigError, match="feature 'f' has no vocabulary, and table 'optembed' needs its size"):
        OptEmbedConfig().build([TableSpec("f", None, 8)], 0)
    table, store = build()
    with pytest.raises(ConfigError, match=r"feature 'f': which rows to keep is not settled yet.*with do: settle"):
        table.compact(store)
    with pytest.raises(ConfigError, match=r"feature 'f': width = 17: expected 1\.\.16"):
        table.choose_width(17)
    assert table.width_choices() == tuple(range(1, 17))
