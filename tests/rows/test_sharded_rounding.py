"""Rows of half precision over two processes: rounded as in one, saved and read in their type."""

from typing import Any

import pytest
import torch

from recembed.embedding import EmbeddingConfig, FeatureEmbedding
from recembed.rows import Adagrad, PlainStore, RowTable, RowWiseAdagrad
from recembed.rows.process_group import ProcessGroup
from recembed.rows.sharded import ShardedStore
from recembed.rows.sharded_stores import ShardedStores
from tests.embedding.fixtures import fitted
from tests.embedding.test_contract import CASES
from tests.rows.test_sharded import FIRST, ROWS, TABLES, fit, plan, train
from tests.rows.two_processes import run

pytestmark = pytest.mark.slow
METHODS = ("full", "hashed, 3 probes added", "tensor train", "zero collision", "optembed")


def narrow(dtype: Any) -> list[RowTable]:
    return [RowTable(t.name, t.num_embeddings, t.embedding_dim, dtype=dtype) for t in TABLES]


def both_types(processes: ProcessGroup) -> list[Any]:
    said = []
    for dtype in ("float16", "bfloat16"):
        rule = Adagrad(learning_rate=0.1, eps=1e-4)
        kind = getattr(torch, dtype)
        made = {"plan": plan(rule), "processes": processes}
        sharded = ShardedStore(narrow(dtype), optimizer=rule, seed=3, **made)
        alone = PlainStore(narrow(dtype), optimizer=rule, seed=3)
        got = train(sharded, slice(0, FIRST) if processes.rank == 0 else slice(FIRST, ROWS))
        wanted = train(alone, slice(0, ROWS))
        far = [(got[key].float() - wanted[key].float()).abs() > 1e-5 for key in wanted]
        share = sum(int(one.sum()) for one in far) / sum(one.numel() for one in far)
        assert got.keys() == wanted.keys() and all(got[key].dtype == wanted[key].dtype for key in wanted)
        assert sharded.held("a").dtype == kind and sharded.read_rows("a").dtype == torch.float32
        own = [part for n in sharded.tables for state in (None, "sum") for _, part in sharded.parts(n, state)]
        assert plan(rule).bytes(sharded.tables, rule)[processes.rank] == sum(p.numel() * p.element_size() for p in own)
        loaded = ShardedStore(narrow(dtype), optimizer=rule, seed=4, **made)
        loaded.load_state_dict(got)
        assert all(torch.equal(values, got[key]) for key, values in loaded.state_dict().items())
        places = torch.tensor([30, 0, 17])
        loaded.write_rows("a", torch.full((3, 16), 0.1), places)
        said += [share, torch.equal(loaded.read_rows("a", places), torch.full((3, 16), 0.1, dtype=kind).float())]
    return said


def test_two_processes_round_as_one() -> None:
    for said in run(both_types):
        assert isinstance(said, list), said
        assert said[1] is True and said[3] is True
        assert said[0] < 0.005 and said[2] < 0.005, said  # float noise may send a number to its other neighbour


def some_methods(processes: ProcessGroup) -> dict[str, float]:
    far = {}
    for case in METHODS:
        config = EmbeddingConfig.model_validate({
            "embedding_dim": 8, "table": CASES[case], "row_dtype": "bfloat16",
            "row_optimizer": RowWiseAdagrad(learning_rate=0.1),
            "l2": 0.1, "numeric": "linear", "features": {"history": {"pooling": "none"}},
        })  # fmt: skip
        stores = ShardedStores(processes, copy_below=100)
        got = fit(FeatureEmbedding(fitted(), config, linear=True, make_store=stores).train(), processes.rank)
        wanted = fit(FeatureEmbedding(fitted(), config, linear=True).train(), None)
        rows = [key for key in wanted if key.startswith("store.") and key.endswith(".weight")]
        other = sum(int((got[key].float() != wanted[key].float()).sum()) for key in rows)
        far[case] = other / sum(wanted[key].numel() for key in rows)
    return far


def test_methods_train_on_two_processes_as_on_one() -> None:
    for said in run(some_methods):
        assert isinstance(said, dict), said
        assert all(share < 0.01 for share in said.values()), said
