"""One store for all features: what sharing it does to gradients, and what it gains over a store for each."""

import pytest
import torch
from torch import Tensor, nn

from recembed.errors import ConfigError
from recembed.evaluation import auc
from recembed.rows import SGD, PlainStore, RowStore, RowWiseAdagrad
from recembed.tables import FullTable, HashedConfig, MultiplexedConfig, Table, TableSpec


def specs(features: int, ids: int, width: int) -> list[TableSpec]:
    return [TableSpec(f"f{i}", ids, width) for i in range(features)]


def store_of(tables: dict[str, Table], rule: SGD | RowWiseAdagrad) -> PlainStore:
    return PlainStore([slot for table in tables.values() for slot in table.slots], optimizer=rule)


def vectors(table: Table, store: RowStore, ids: Tensor) -> Tensor:
    first = store.first_row[table.slots[0].name]
    return table.decode([store(table.address(ids)[:, 0] + first, table.embedding_dim)], ids)


def test_a_row_that_two_features_share_takes_the_sum_of_both_gradients() -> None:
    tables = MultiplexedConfig(num_embeddings=3, exact_below=0).build(specs(2, 50, 2), seed=0)  # two rows are reserved
    store = store_of(tables, SGD(learning_rate=0.5))
    before = store.rows("multiplexed").clone()
    loss = 3 * vectors(tables["f0"], store, torch.tensor([7])).sum()
    loss = loss + (vectors(tables["f1"], store, torch.tensor([8])) * torch.tensor([1.0, -2.0])).sum()
    loss.backward()
    moved = store.rows("multiplexed") - before
    torch.testing.assert_close(moved, -0.5 * torch.tensor([[0.0, 0.0], [0.0, 0.0], [3 + 1.0, 3 - 2.0]]))


def test_rows_that_no_id_hashes_to_never_move() -> None:
    tables = MultiplexedConfig(num_embeddings=500, exact_below=0).build(specs(2, 900, 4), seed=0)
    store = store_of(tables, SGD(learning_rate=1.0))
    before, ids = store.rows("multiplexed").clone(), torch.arange(40)
    torch.cat([vectors(table, store, ids) for table in tables.values()]).sum().backward()
    touched = torch.cat([table.address(ids).flatten() for table in tables.values()]).unique()
    moved = (store.rows("multiplexed") != before).any(1).nonzero().flatten()
    assert torch.equal(moved, touched)


def test_without_collisions_it_is_the_exact_tables() -> None:
    asked, ids = specs(2, 60, 4), torch.arange(60)
    shared = MultiplexedConfig(num_embeddings=100_000, exact_below=0).build(asked, seed=0)
    exact: dict[str, Table] = {spec.name: FullTable.of(spec) for spec in asked}
    assert len(torch.cat([table.address(ids).flatten() for table in shared.values()]).unique()) == 120
    stores = [store_of(tables, RowWiseAdagrad(learning_rate=0.1)) for tables in (shared, exact)]
    for name, table in shared.items():
        stores[1].rows(name).copy_(stores[0].rows("multiplexed")[table.address(ids).flatten()])
    drawn = torch.Generator().manual_seed(0)
    for _ in range(5):
        batch = torch.randint(60, (2, 32), generator=drawn)
        found = []
        for tables, store in zip((shared, exact), stores, strict=True):
            found.append(torch.cat([vectors(tables[n], store, own) for n, own in zip(tables, batch, strict=True)]))
            found[-1].sin().sum().backward()
        assert torch.equal(found[0], found[1])


def test_sharing_beats_splitting_at_equal_bytes_where_features_add_up() -> None:
    """Eight independent features of 200 values in 400 rows: one store of 400, or eight of 50."""
    drawn = torch.Generator().manual_seed(0)
    ids = torch.randint(200, (14_000, 8), generator=drawn)
    effects = torch.randn(8, 200, generator=drawn)
    logits = effects[torch.arange(8), ids].sum(1)
    labels = (torch.rand(len(ids), generator=drawn) < logits.sigmoid()).float()
    asked = specs(8, 200, 8)
    split = {spec.name: HashedConfig(num_embeddings=50).build([spec], seed=0)[spec.name] for spec in asked}
    shared = MultiplexedConfig(num_embeddings=400, exact_below=0).build(asked, seed=0)
    assert sum({s.name: s.bytes for t in split.values() for s in t.slots}.values()) == shared["f0"].slots[0].bytes
    assert _trained(shared, ids, labels) > _trained(split, ids, labels) + 0.05


def _trained(tables: dict[str, Table], ids: Tensor, labels: Tensor) -> float:
    """Return the AUC of the last 4,000 rows after two epochs over the others."""
    torch.manual_seed(0)
    store, head = store_of(tables, RowWiseAdagrad(learning_rate=0.3)), nn.Linear(64, 1)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.01)

    def scores(rows: slice) -> Tensor:
        found = [vectors(table, store, ids[rows, i]) for i, table in enumerate(tables.values())]
        return head(torch.cat(found, dim=1)).squeeze(1)

    for start in list(range(0, 10_000, 200)) * 2:
        rows = slice(start, start + 200)
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(scores(rows), labels[rows], reduction="sum").div(200).backward()
        optimizer.step()
    with torch.no_grad():
        found = scores(slice(10_000, None))
    return auc(labels[10_000:].numpy(), found.numpy())


def test_bad_settings() -> None:
    with pytest.raises(ConfigError, match=r"row_dim = 4 under combine = 'sum' must equal embedding_dim = 8"):
        MultiplexedConfig(num_embeddings=99, probes=2, row_dim=4, combine="sum").build(specs(1, 900, 8), seed=0)
    with pytest.raises(ValueError, match="probes by feature under 'concat' need row_dim"):
        MultiplexedConfig(probes={"f0": 2})
