from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from recembed.batch import Batch
from recembed.data import encode, fit
from recembed.data.keys import to_keys
from recembed.embedding import EmbeddingConfig, FeatureEmbedding
from recembed.errors import ExportError
from recembed.export import feature_vectors
from recembed.export.vectors import read_vectors, write_id_map, write_vectors
from recembed.schema.feature import Schema
from recembed.schema.fitted import FittedSchema
from tests.export import shop


def cities() -> tuple[FittedSchema, FeatureEmbedding]:
    frame = pl.DataFrame({"city": ["a", "b", "b", "b", "a", "c", None], "click": [0, 1, 1, 0, 0, 1, 1]})
    schema = Schema.parse({"features": [{"name": "city", "min_count": 2}], "labels": [{"name": "click"}]})
    fitted = fit(frame, schema)
    embedding = FeatureEmbedding(fitted, EmbeddingConfig(embedding_dim=2))
    rows = [[0.0, 0.0], [1.0, 1.5], [2.0, 2.5], [3.0, 3.5], [4.0, 4.5]]  # padding, missing, other, b, a
    embedding.store.rows("city").copy_(torch.tensor(rows))
    return fitted, embedding


def test_file_by_hand(tmp_path: Path) -> None:
    fitted, embedding = cities()
    record = write_vectors(embedding, fitted, "city", tmp_path)
    frame = pl.read_parquet(tmp_path / "vectors.parquet")
    assert frame.schema == {"city": pl.String, "vector": pl.Array(pl.Float32, 2), "training_count": pl.Int64}
    assert frame.rows() == [("b", [3.0, 3.5], 3), ("a", [4.0, 4.5], 2)]
    assert (record.count, record.dimension) == (2, 2)
    assert read_vectors(tmp_path).tolist() == [[3.0, 3.5], [4.0, 4.5]]
    reserved = pl.read_parquet(tmp_path / "reserved_vectors.parquet")
    assert reserved.rows() == [("missing", [1.0, 1.5], 1), ("out_of_vocabulary_0", [2.0, 2.5], 1)]


def test_other_tools_see_a_fixed_size_list(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    fitted, embedding = cities()
    write_vectors(embedding, fitted, "city", tmp_path)
    assert str(parquet.read_schema(tmp_path / "vectors.parquet").field("vector").type).startswith("fixed_size_list<")


def test_digest_follows_the_numbers_alone(tmp_path: Path) -> None:
    fitted, embedding = cities()
    first = write_vectors(embedding, fitted, "city", tmp_path).digest
    assert write_vectors(embedding, fitted, "city", tmp_path).digest == first
    embedding.store.rows("city")[3, 0] += 1e-6
    assert write_vectors(embedding, fitted, "city", tmp_path).digest != first


@pytest.mark.parametrize("project", [False, True])
@pytest.mark.parametrize("table", shop.TABLES)
@pytest.mark.parametrize("name", ["item", "user"])
def test_vectors_are_what_the_model_sees(table: str, name: str, project: bool, tmp_path: Path) -> None:
    settings = {
        "city": {
            "table": {"kind": "multiplexed", "store": "wide", "num_embeddings": 30, "row_dim": 3, "exact_below": 0}
        }
    }
    embedding = shop.trained(table, "dcnv2", project=project, **(settings if project else {})).embedding
    assert isinstance(embedding, FeatureEmbedding)
    assert bool(len(embedding.projections)) == project
    write_vectors(embedding, shop.fitted(), name, tmp_path)
    frame = pl.read_parquet(tmp_path / "vectors.parquet")
    vectors = dict(zip(frame[name], read_vectors(tmp_path), strict=True))
    data = encode(shop.rows(), shop.fitted(), key_features=embedding.key_features)
    batch: Batch = data.batch(np.arange(len(data)))
    seen = embedding(batch).fields[name].detach().numpy()
    known = 0
    for raw, vector in zip(shop.rows()[shop.SCHEMA[name].source], seen, strict=True):
        if raw in vectors:
            np.testing.assert_allclose(vectors[raw], vector, rtol=0, atol=1e-6)
            known += 1
    assert known > 200


def test_a_hash_method_has_a_reserved_vector_for_missing_alone(tmp_path: Path) -> None:
    embedding = shop.trained("hashed").embedding
    assert isinstance(embedding, FeatureEmbedding)
    write_vectors(embedding, shop.fitted(), "item", tmp_path)
    assert pl.read_parquet(tmp_path / "reserved_vectors.parquet")["meaning"].to_list() == ["missing"]


def test_id_map_leads_from_key_to_row(tmp_path: Path) -> None:
    fitted, embedding = cities()
    write_id_map(fitted.vocabularies["city"], tmp_path)
    frame = pl.read_parquet(tmp_path / "id_map.parquet")
    assert frame.schema == {"key": pl.Int64, "id": pl.Int64, "value": pl.String}
    assert frame["key"].to_list() == to_keys(pl.Series(["b", "a"])).tolist()
    found = feature_vectors(embedding, "city", frame["id"].to_torch())
    assert found.tolist() == [[3.0, 3.5], [4.0, 4.5]]


def test_a_vector_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    fitted, embedding = cities()
    embedding.store.rows("city")[4, 1] = float("nan")
    with pytest.raises(ExportError, match="feature 'city': the vectors of 1 ids, among them 'a', are not finite"):
        write_vectors(embedding, fitted, "city", tmp_path)


def test_features_whose_ids_cannot_be_listed_are_refused(tmp_path: Path) -> None:
    fitted, embedding = cities()
    nothing = fitted.vocabularies["city"]
    nothing = replace(nothing, keys=nothing.keys[:0], counts=nothing.counts[:0], values=nothing.values[:0])
    with pytest.raises(ExportError, match="feature 'city' has no known ids; lower its min_count"):
        write_vectors(embedding, replace(fitted, vocabularies={"city": nothing}), "city", tmp_path)
    with pytest.raises(ExportError, match="feature 'city' has no vocabulary"):
        write_vectors(embedding, replace(fitted, vocabularies={}), "city", tmp_path)
    shop_embedding = shop.trained("full").embedding
    assert isinstance(shop_embedding, FeatureEmbedding)
    with pytest.raises(ExportError, match="feature 'age' is numeric"):
        write_vectors(shop_embedding, shop.fitted(), "age", tmp_path)
