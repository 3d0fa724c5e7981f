import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor, nn

from recembed.batch import Batch
from recembed.data import encode, fit
from recembed.embedding import EmbeddingConfig, FeatureEmbedding
from recembed.errors import ExportError
from recembed.export import ServingGraph, trace
from recembed.export.bundle import trained_logits
from recembed.export.inputs import GraphInputs, RowReader
from recembed.hashing import MISSING_KEY
from recembed.models import MODELS, LogisticRegression
from recembed.schema.feature import Schema
from tests.export import shop


def inputs(rows: pl.DataFrame) -> GraphInputs:
    (found,) = RowReader(shop.fitted()).read(rows, block=1000)
    return found


def strange_rows() -> pl.DataFrame:
    """Unseen, missing and empty in one row each."""
    return pl.concat(
        [
            shop.rows().head(1).with_columns(user_id=pl.lit("never seen"), item=pl.lit(-77, pl.Int64)),
            shop.rows().head(1).with_columns(user_id=pl.lit(None, pl.String), age=pl.lit(None, pl.Float64)),
            empty_rows().head(1),
        ]
    )


def empty_rows() -> pl.DataFrame:
    """Two rows without any id in their bags and sequences."""
    no_ids, no_tags, no_numbers = (pl.lit([], pl.List(kind)) for kind in (pl.Int64, pl.String, pl.Float64))
    return shop.rows().head(2).with_columns(history=no_ids, tags=no_tags, tag_weights=no_numbers)


@pytest.mark.parametrize("table", shop.TABLES)
def test_exported_equals_trained_for_any_number_of_rows(table: str) -> None:
    model = shop.trained(table).eval()
    program = trace(ServingGraph(model, shop.fitted()), shop.SCHEMA).module()
    for rows in (shop.rows(), shop.rows().slice(250, 1), empty_rows(), strange_rows()):
        expected = trained_logits(model, shop.fitted(), rows)
        served = program(*inputs(rows))
        np.testing.assert_allclose(served["logit"].numpy(), expected, rtol=0, atol=1e-5)
        torch.testing.assert_close(served["probability"], torch.sigmoid(torch.from_numpy(expected)))


@pytest.mark.parametrize("kind", sorted(set(MODELS) - {"deepfm"}))
def test_every_model_can_be_served(kind: str) -> None:
    model = shop.trained("multiplexed", kind).eval()
    served = ServingGraph(model, shop.fitted())(*inputs(shop.rows()))["logit"].detach().numpy()
    np.testing.assert_allclose(served, trained_logits(model, shop.fitted(), shop.rows()), rtol=0, atol=1e-5)


def test_rows_trained_in_either_store_are_served_alike() -> None:
    fused, plain = (
        ServingGraph(shop.trained("hashed", row_store=store), shop.fitted())(*inputs(shop.rows()))["logit"]
        for store in ("torchrec", "torch")
    )
    torch.testing.assert_close(fused, plain, rtol=0, atol=1e-5)


def test_lookup_by_hand() -> None:
    frame = pl.DataFrame({"city": ["a", "a", "b"], "x": [1.0, 2.0, 3.0], "click": [0, 1, 1]})
    schema = Schema.parse(
        {"features": [{"name": "city"}, {"name": "x", "kind": "numeric"}], "labels": [{"name": "click"}]}
    )
    fitted = fit(frame, schema)
    model = LogisticRegression(FeatureEmbedding(fitted, EmbeddingConfig(), linear=True)).eval()
    with torch.no_grad():
        model.embedding.store.rows("city.linear").copy_(torch.tensor([[0.0], [10.0], [20.0], [30.0], [40.0]]))
    keys = encode(frame, fitted, key_features=frozenset({"city"})).keys
    graph = ServingGraph(model, fitted)
    asked = torch.tensor([[int(keys[0, 0])], [int(keys[2, 0])], [123], [MISSING_KEY]])
    served = graph(asked, {}, torch.full((4, 1), float("nan")))
    assert served["logit"].tolist() == [30.0, 40.0, 20.0, 10.0]  # a, b, out of vocabulary, missing


def test_runs_where_neither_recembed_nor_torchrec_can_be_imported(bundle: Path, tmp_path: Path) -> None:
    torch.save(inputs(shop.rows()), tmp_path / "inputs.pt")
    code = f"""
import sys
class Wall:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("recembed", "torchrec", "fbgemm_gpu", "polars"):
            raise ImportError(name)
sys.meta_path.insert(0, Wall())
import torch
graph = torch.export.load({str(bundle / "ranker.pt2")!r}).module()
served = graph(*torch.load({str(tmp_path / "inputs.pt")!r}))
torch.save(served["logit"], {str(tmp_path / "out.pt")!r})
assert not [name for name in sys.modules if name.split(".")[0] in ("recembed", "torchrec", "fbgemm_gpu")]
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    expected = trained_logits(shop.trained("multiplexed").eval(), shop.fitted(), shop.rows())
    np.testing.assert_allclose(torch.load(tmp_path / "out.pt").numpy(), expected, rtol=0, atol=1e-5)


def test_the_file_holds_what_serving_needs_and_no_optimiser_state() -> None:
    model = shop.trained("full")
    program = trace(ServingGraph(model, shop.fitted()), shop.SCHEMA)
    held = {**program.state_dict, **program.constants}
    numbers = sum(t.numel() for t in {t.data_ptr(): t for t in held.values() if isinstance(t, Tensor)}.values())
    store = model.embedding.store
    maps = sum(2 * len(vocabulary.keys) for vocabulary in shop.fitted().vocabularies.values())
    dense = sum(p.numel() for p in model.parameters()) + sum(b.numel() for b in model.buffers())
    assert store.optimizer_bytes > 0
    assert numbers <= store.bytes // 4 + maps + dense + 50


def test_the_trained_model_is_left_as_it_is() -> None:
    model = shop.trained("full")
    store, training = model.embedding.store, model.training
    before = {name: values.clone() for name, values in model.state_dict().items()}
    keys = shop.fitted().vocabularies["item"].tensors()[0].clone()
    graph = ServingGraph(model, shop.fitted())
    with torch.no_grad():
        for values in (*graph.parameters(), *graph.buffers()):
            values.zero_()
    assert torch.equal(shop.fitted().vocabularies["item"].tensors()[0], keys)
    assert model.embedding.store is store
    assert model.training == training
    for name, values in model.state_dict().items():
        torch.testing.assert_close(values, before[name], rtol=0, atol=0)


def test_another_mapping_is_refused() -> None:
    other = fit(shop.rows(), shop.SCHEMA)
    with pytest.raises(ExportError, match=r"feature 'user': the vocabulary has \d+ ids, the trained table \d+ rows"):
        ServingGraph(shop.trained("full"), other)
    smaller = fit(shop.rows(), Schema(features=shop.SCHEMA.features[:2], labels=shop.SCHEMA.labels))
    with pytest.raises(ExportError, match="built for another schema"):
        ServingGraph(shop.trained("full"), smaller)


def test_a_model_without_an_embedding_is_refused() -> None:
    with pytest.raises(ExportError, match="Linear holds 0 FeatureEmbeddings: expected exactly one"):
        ServingGraph(nn.Linear(1, 1), shop.fitted())


class OwnModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = shop.trained("full", row_store="torch").embedding

    def forward(self, batch: Batch) -> Tensor:
        vectors = self.embedding(batch).concat()
        return vectors.view(len(vectors), -1).sum(1)  # len() is a constant to the quick tracer


def test_a_model_of_the_users_own_is_served_for_any_number_of_rows() -> None:
    model = OwnModel().eval()
    program = trace(ServingGraph(model, shop.fitted()), shop.SCHEMA).module()
    for rows in (shop.rows(), shop.rows().head(1)):
        served = program(*inputs(rows))["logit"].numpy()
        np.testing.assert_allclose(served, trained_logits(model, shop.fitted(), rows), rtol=0, atol=1e-5)


class Branching(OwnModel):
    def forward(self, batch: Batch) -> Tensor:
        vectors = self.embedding(batch).concat()
        return vectors.sum(1) if vectors.sum() > 0 else vectors.mean(1)


def test_a_model_that_branches_on_numbers_is_refused() -> None:
    with pytest.raises(ExportError, match=r"cannot be traced by torch\.export"):
        trace(ServingGraph(Branching(), shop.fitted()), shop.SCHEMA)
