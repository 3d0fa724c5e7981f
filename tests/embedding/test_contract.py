"""What every method must prove, in both row stores: one case a kind and variant."""

import importlib.util
from typing import Any

import pytest
import torch
import torch.fx.experimental._config as fx_config
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from recembed.batch import Batch, Jagged
from recembed.embedding import EmbeddingConfig, FeatureEmbedding
from recembed.errors import CheckpointError, ConfigError
from recembed.models import DeepFMConfig, DLRMConfig, ModelConfig
from recembed.rows import PlainStore, RowWiseAdagrad
from recembed.tables import TABLES
from tests.embedding.fixtures import SCHEMA, batch, fitted, row, visits

CASES: dict[str, Any] = {
    "full": "full",
    "hashed": "hashed",
    "hashed, 2 probes side by side": {"kind": "hashed", "ratio": 0.5, "probes": 2},
    "hashed, 3 probes added": {"kind": "hashed", "ratio": 0.5, "probes": 3, "combine": "sum"},
    "hashed, 2 probes averaged": {"kind": "hashed", "ratio": 0.5, "probes": 2, "combine": "mean"},
    "hashed, weights that alone would stay exact": {"kind": "hashed", "num_embeddings": 500, "probes": 2},
    "multiplexed": {"kind": "multiplexed", "ratio": 0.5, "exact_below": 20},
    "multiplexed, 4 probes": {"kind": "multiplexed", "num_embeddings": 90, "probes": 4, "exact_below": 0},
    "compositional": {"kind": "compositional", "ratio": 0.5, "exact_below": 20},
    "compositional, 2 halves": {"kind": "compositional", "combine": "concat", "exact_below": 20},
    "mixed dimension": {"kind": "mixed_dimension", "ratio": 0.4, "exact_below": 20},
    "mixed dimension, 3 blocks": {"kind": "mixed_dimension", "blocks": 3, "temperature": 1, "exact_below": 20},
    "tensor train": {"kind": "tensor_train", "ratio": 0.5, "exact_below": 20},
    "robe": {"kind": "robe", "ratio": 0.5, "exact_below": 20},
    "robe, chunks of 4": {"kind": "robe", "num_embeddings": 90, "chunk": 4, "exact_below": 20},
    "adaptive": {"kind": "adaptive", "ratio": 0.4, "exact_below": 20},
    "int8": "int8",
    "int8, a scale per row": {"kind": "int8", "scale": "row"},
    "int8, while training": {"kind": "int8", "scale": "row", "when": "training"},
    "int16": {"kind": "int16", "when": "training"},
    "alpt": {"kind": "alpt", "scale_rate": 0.5},
    "product quantised": {"kind": "product_quantized", "ratio": 0.3, "exact_below": 60},
    "product quantised, by keys": {"kind": "product_quantized", "parts": 4, "codewords": 8, "variant": "softmax"},
    "product quantised, by frequency": {
        "kind": "product_quantized",
        "parts": 2,
        "codewords": 16,
        "frequent_share": 0.2,
        "rare_codewords": 4,
    },
    "deep hash": {"kind": "deep_hash", "hashes": 16, "layers": 2, "ratio": 0.5, "exact_below": 60},
    "lightgcn": {"kind": "lightgcn", "graph": visits(), "user": "user", "item": "item", "layers": 2},
    "lightgcn over hashed": {
        **{
            "kind": "lightgcn",
            "graph": visits(),
            "user": "user",
            "item": "item",
            "base": {"kind": "hashed", "ratio": 0.5},
        },
    },
    "ngcf": {"kind": "ngcf", "graph": visits(), "user": "user", "item": "item", "layers": 2, "message_dropout": 0},
    "optembed": {"kind": "optembed", "ratio": 0.5, "exact_below": 20},
    "optembed, a threshold per id": {"kind": "optembed", "thresholds": "id", "norm": 2, "exact_below": 20},
    "pep": {"kind": "pep", "ratio": 0.3, "exact_below": 20},
    "pep, a threshold per weight": {"kind": "pep", "thresholds": "weight", "exact_below": 20},
    "deeplight": {"kind": "deeplight", "ratio": 0.2, "warm_up": 1, "every": 1, "exact_below": 20},
    "autodim": {"kind": "autodim", "ratio": 0.6, "exact_below": 20},
    "autosrh": {"kind": "autosrh", "ratio": 0.5, "exact_below": 20},
    "matryoshka": {"kind": "matryoshka", "widths": [2, 4, 8], "serve_width": 4},
    "matryoshka of hashed": {"kind": "matryoshka", "table": {"kind": "hashed", "ratio": 0.5}, "serve_width": 4},
    "cafe": {"kind": "cafe", "ratio": 0.5, "threshold": 2, "exact_below": 20},
    "cafe, by frequency": {"kind": "cafe", "num_embeddings": 60, "threshold": 3, "score": "frequency"},
    "zero collision": {"kind": "zero_collision", "ratio": 0.5, "eviction_interval": 2, "exact_below": 20},
    "zero collision, 9 rows": {"kind": "zero_collision", "zch_size": 9, "eviction_interval": 1, "admission": "average"},
    "dedup": {"kind": "dedup", "ratio": 0.5, "exact_below": 20},
    "dedup, blocks of 4": {"kind": "dedup", "ratio": 0.3, "block_rows": 4, "exact_below": 20},
}
STORES = ["torch", "torchrec"] if importlib.util.find_spec("fbgemm_gpu") else ["torch"]
every_case = pytest.mark.parametrize("case", CASES)
every_store = pytest.mark.parametrize("store", STORES)


def build(case: str, store: str = "torch", **options: Any) -> FeatureEmbedding:
    settings = {"embedding_dim": 8, "table": CASES[case], "row_store": store} | options.pop("settings", {})
    return FeatureEmbedding(fitted(), EmbeddingConfig.model_validate(settings), linear=True, **options)


def objective(embedding: FeatureEmbedding, rows: Batch) -> Tensor:
    embedded = embedding(rows)
    total = embedded.concat().sin().sum() + embedded.linear.sin().sum()
    return total + sum(sequence.values.sin().sum() for sequence in embedded.sequences.values())


def test_every_kind_has_a_case() -> None:
    assert {case if isinstance(case, str) else case["kind"] for case in CASES.values()} == set(TABLES)


@every_case
@every_store
def test_shapes(case: str, store: str) -> None:
    embedding = build(case, store, settings={"features": {"history": {"pooling": "none"}}})
    for rows in (5, 1, 0):
        embedded = embedding(batch(rows, embedding.key_features))
        assert embedded.fields.keys == embedding.field_keys
        assert sorted(embedding.field_keys) == ["day", "genres", "item", "user"]
        assert embedded.fields.values.shape == (rows, 32) and embedded.fields.stack().shape == (rows, 4, 8)
        assert embedded.linear.shape == (rows,) and embedded.dense.shape == (rows, embedding.dense_width)
        history = embedded.sequences["history"]
        assert history.values.shape == (rows, 4, 8) and history.mask.shape == (rows, 4)


@every_case
@every_store
def test_a_row_does_not_depend_on_its_batch(case: str, store: str) -> None:
    embedding = build(case, store).eval()
    rows = batch(9, embedding.key_features)
    together = embedding(rows)
    for place in range(9):
        alone = embedding(row(rows, place))
        torch.testing.assert_close(alone.concat()[0], together.concat()[place])
        torch.testing.assert_close(alone.linear[0], together.linear[place])


@every_case
def test_both_stores_train_alike(case: str) -> None:
    after = []
    for store in STORES:
        embedding = build(case, store, settings={"l2": 0.1, "row_optimizer": RowWiseAdagrad(learning_rate=0.1)})
        for step in range(4):
            torch.manual_seed(step)  # some methods draw widths
            objective(embedding, batch(32, embedding.key_features, seed=step)).backward()
        after.append(embedding.state_dict())
    for key, value in after[0].items():
        torch.testing.assert_close(after[-1][key], value, rtol=1e-5, atol=1e-6, msg=key)


@every_case
@every_store
def test_every_row_that_is_read_moves_and_every_parameter_has_a_gradient(case: str, store: str) -> None:
    embedding = build(case, store, settings={"numeric": "linear"})
    before = {key: value.clone() for key, value in embedding.store.state_dict().items()}
    objective(embedding, batch(64, embedding.key_features)).backward()
    for name, table in embedding.store.tables.items():
        moved = (embedding.store.rows(name) != before[f"{name}.weight"]).any(1).sum()
        assert 0 < moved <= table.num_embeddings, name
    assert [name for name, p in embedding.named_parameters() if p.grad is None] == []


@every_case
def test_planned_bytes_are_the_bytes_taken(case: str) -> None:
    planned, taken = build(case, device="meta"), build(case)
    kept = sum(value.numel() * 4 for key, value in taken.store.state_dict().items() if key.endswith(".weight"))
    assert planned.store.bytes == taken.store.bytes == kept
    assert planned.bytes == taken.bytes
    assert planned.store.rows(next(iter(taken.store.tables))).is_meta


@every_case
def test_same_seed_same_table(case: str) -> None:
    first, again, other = (build(case, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first if key.endswith("weight"))


@every_case
@every_store
def test_state_survives_a_round_trip(case: str, store: str) -> None:
    trained = build(case, store)
    objective(trained, batch(64, trained.key_features)).backward()
    fresh = build(case, seed=0)
    fresh.load_state_dict(trained.state_dict())
    rows = batch(16, trained.key_features, seed=5)
    torch.testing.assert_close(fresh(rows).concat(), trained(rows).concat(), rtol=0, atol=0)


@every_case
def test_what_was_loaded_decides_not_the_seed_of_the_build(case: str) -> None:
    trained, fresh = build(case, seed=0), build(case, seed=5)
    fresh.load_state_dict(trained.state_dict())
    rows = batch(16, trained.key_features)
    torch.testing.assert_close(fresh(rows).concat(), trained(rows).concat(), rtol=0, atol=0)


class _Exported(nn.Module):
    """A batch taken apart, as ``torch.export`` wants it."""

    def __init__(self, embedding: FeatureEmbedding) -> None:
        super().__init__()
        self.embedding = embedding

    def forward(self, ids: Tensor, numeric: Tensor, jagged: dict[str, tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        bags = {name: Jagged(values, offsets) for name, (values, offsets) in jagged.items()}
        embedded = self.embedding(Batch(ids, bags, numeric, numeric[:, :0]))
        return embedded.concat(), embedded.linear


def _taken_apart(rows: Batch) -> tuple[Tensor, Tensor, dict[str, tuple[Tensor, Tensor]]]:
    return rows.ids, rows.numeric, {name: (bag.values, bag.offsets) for name, bag in rows.jagged.items()}


@every_case
def test_exported_equals_eager(case: str) -> None:
    embedding = build(case)
    state = embedding.store.state_dict()
    embedding.store = PlainStore(list(embedding.store.tables.values()), optimizer=None)
    embedding.store.load_state_dict({key: value for key, value in state.items() if key.endswith(".weight")})
    module = _Exported(embedding).eval()
    size = torch.export.Dim("batch", min=1)
    shapes = {
        "ids": {0: size},
        "numeric": {0: size},
        "jagged": {name: ({0: torch.export.Dim.DYNAMIC}, {0: size + 1}) for name in ("genres", "history")},
    }
    with fx_config.patch(backed_size_oblivious=True):  # else a batch of one is refused
        program = torch.export.export(module, _taken_apart(batch(7, embedding.key_features)), dynamic_shapes=shapes)
    for rows in (1, 4, 33):
        inputs = _taken_apart(batch(rows, embedding.key_features, seed=rows))
        for served, eager in zip(program.module()(*inputs), module(*inputs), strict=True):
            torch.testing.assert_close(served, eager, rtol=0, atol=0)


def test_the_schema_of_the_cases_has_every_kind() -> None:
    assert {feature.kind for feature in SCHEMA.features} == {"categorical", "bag", "sequence", "numeric"}


@every_case
@every_store
def test_compact_serves_the_trained_vectors(case: str, store: str) -> None:
    embedding = build(case, store, settings={"features": {"history": {"pooling": "none"}}})
    for step in range(3):
        objective(embedding, batch(32, embedding.key_features, seed=step)).backward()
    for table in embedding.all_tables().values():
        table.settle(embedding.store)
    rows = batch(64, embedding.key_features, seed=9)
    trained, served = embedding.eval()(rows), embedding.compact()(rows)
    assert served.fields.keys == trained.fields.keys
    torch.testing.assert_close(served.concat(), trained.concat(), rtol=0, atol=1e-6)
    torch.testing.assert_close(served.linear, trained.linear, rtol=0, atol=1e-6)
    torch.testing.assert_close(
        served.sequences["history"].values, trained.sequences["history"].values, atol=1e-6, rtol=0
    )


@every_case
def test_served_bytes_are_planned_and_kept(case: str) -> None:
    embedding = build(case)
    for step in range(3):
        objective(embedding, batch(32, embedding.key_features, seed=step)).backward()
    for table in embedding.all_tables().values():
        table.settle(embedding.store)
    served = embedding.compact()
    kept = [
        *served.store.buffers(),
        *(v for t in served.all_tables().values() for v in (*t.parameters(), *t.buffers())),
    ]
    assert served.bytes == sum(values.numel() * values.element_size() for values in kept)
    assert served.bytes <= embedding.served_bytes


def _settled(embedding: FeatureEmbedding) -> FeatureEmbedding:
    for step in range(3):
        objective(embedding, batch(32, embedding.key_features, seed=step)).backward()
    for table in embedding.all_tables().values():
        table.settle(embedding.store)
    return embedding


@every_case
@pytest.mark.parametrize(("dtype", "rounding"), [("float16", 2**-11), ("int8", 1 / 254 + 1e-3)])
def test_narrow_rows_are_planned_and_near_the_trained_ones(case: str, dtype: str, rounding: float) -> None:
    embedding = _settled(build(case, settings={"served_dtype": dtype, "l2": 0.0}))
    served = embedding.compact()
    assert served.bytes <= embedding.served_bytes <= build(case).served_bytes
    assert embedding.training and all(table.training for table in embedding.all_tables().values())
    rows = batch(64, embedding.key_features, seed=9)
    trained, narrow = embedding.eval()(rows), served(rows)
    for vectors, near in ((trained.concat(), narrow.concat()), (trained.linear, narrow.linear)):
        gap = (vectors.detach() - near).abs().max()
        assert gap <= 6 * rounding * vectors.detach().abs().max()  # a vector is made of a few rounded rows


def test_a_compact_embedding_cannot_be_trained() -> None:
    with pytest.raises(ConfigError, match="a compact embedding cannot be trained: build the model from its config"):
        build("full").compact().train()


@pytest.mark.parametrize("case", ["full", "optembed", "dedup", "multiplexed"])
def test_a_compact_state_is_refused_by_a_training_run(case: str) -> None:
    compact = _settled(build(case)).compact()
    model = nn.ModuleDict({"embedding": build(case)})
    with pytest.raises(CheckpointError, match=r"of a compact embedding, which only serves: .*; load a checkpoint of"):
        model.load_state_dict({f"embedding.{key}": value for key, value in compact.state_dict().items()})


@pytest.mark.parametrize("model", [DeepFMConfig(hidden_units=(8,)), DLRMConfig(bottom_units=(8,), top_units=(8,))])
@pytest.mark.parametrize("kind", TABLES)
def test_one_word_puts_a_method_into_a_model_that_learns_and_serves(kind: str, model: ModelConfig) -> None:
    table = CASES[kind] if kind in ("lightgcn", "ngcf") else kind  # these must be told their graph
    config = EmbeddingConfig.model_validate({"embedding_dim": 8, "table": table, "row_store": "torch"})
    embedding = FeatureEmbedding(fitted(), config, linear=model.builds.needs_linear)
    built = model.build(embedding)
    rows, optimizer = batch(64, embedding.key_features), torch.optim.Adam(built.parameters(), lr=0.02)
    labels, losses = (torch.arange(64) % 2).float(), []
    for _ in range(12):
        optimizer.zero_grad()
        loss = binary_cross_entropy_with_logits(built(rows), labels)
        (loss + (embedding.take_auxiliary_loss() or 0)).backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    for method in embedding.all_tables().values():
        method.settle(embedding.store)
    trained = built.eval()(rows)
    built.embedding = embedding.compact()
    torch.testing.assert_close(built(rows), trained, rtol=0, atol=1e-5)
