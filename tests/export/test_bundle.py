import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from recembed.data import fit
from recembed.embedding import EmbeddingConfig, FeatureEmbedding, embedding_plan
from recembed.errors import ExportError
from recembed.export import Manifest, ServingGraph, bundle, export_bundle, verify_bundle
from recembed.export.bundle import trained_logits
from recembed.export.manifest import space_id
from recembed.export.vectors import feature_vectors, read_vectors
from recembed.export.verify import GOLDEN_LOGIT
from recembed.models import MODELS, LogisticRegression
from recembed.schema.feature import Schema
from recembed.schema.fitted import FittedSchema
from recembed.serve import load
from tests.export import shop

SMALL = FittedSchema(
    Schema(features=(shop.SCHEMA["item"], shop.SCHEMA["city"])),
    {name: shop.fitted().vocabularies[name] for name in ("item", "city")},
    {},
    {"item": "int", "city": "string"},
    200,
)


def small_model() -> LogisticRegression:
    embedding = FeatureEmbedding(SMALL, EmbeddingConfig(embedding_dim=4, row_store="torch"), linear=True)
    embedding.store.stack(1).uniform_(-1, 1, generator=torch.Generator().manual_seed(0))
    return LogisticRegression(embedding)


def export(out: Path, **changes: Any) -> Manifest:
    settings: dict[str, Any] = {"golden": shop.rows().tail(50), "run": {"run_id": "run 1"}, **changes}
    model = settings.pop("model", None) or small_model()
    return export_bundle(model, settings.pop("fitted", SMALL), out, **settings)


def test_manifest_says_what_is_there(bundle: Path) -> None:
    manifest = Manifest.read(bundle)
    vocabulary = shop.fitted().vocabularies["item"]
    assert (manifest.feature, manifest.metric, manifest.dtype) == ("item", "cosine", "float32")
    assert (manifest.count, manifest.dimension, manifest.golden_rows) == (len(vocabulary.keys), 4, 120)
    assert manifest.mapping_version == shop.fitted().version
    assert manifest.run == {"run_id": "run 1", "metrics": {"auc": 0.5}}
    assert manifest.tolerance == {"probability": 1e-6, "logit": 1e-5}
    assert manifest.difference["compaction"] == 0.0
    assert all(manifest.difference[output] <= limit for output, limit in manifest.tolerance.items())
    assert {"recembed", "torch", "polars", "python"} <= set(manifest.versions)
    on_disk = {path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file()}
    assert set(manifest.files) == on_disk - {"manifest.json"}
    assert [entry["feature"] for entry in manifest.inputs["keys"]] == ["user", "item", "city"]


def test_golden_rows_hold_raw_columns_and_scores_and_no_label(bundle: Path) -> None:
    golden = pl.read_parquet(bundle / "golden.parquet")
    raw = ["user_id", "item", "city", "tags", "tag_weights", "history", "age"]
    assert golden.columns == [*raw, "recembed.logit", "recembed.probability"]
    assert golden["item"].to_list() == shop.rows().tail(120)["item"].to_list()


def test_space_id_names_run_feature_mapping_and_weights(bundle: Path) -> None:
    manifest = Manifest.read(bundle)
    digest = hashlib.sha256(read_vectors(bundle).tobytes()).hexdigest()
    words = ["run 1", "item", shop.fitted().version, digest]
    assert manifest.space_id == space_id(*words)
    others = [space_id(*words[:place], "other", *words[place + 1 :]) for place in range(4)]
    assert len({manifest.space_id, *others}) == 5


def test_what_was_trained_later_is_another_space(tmp_path: Path) -> None:
    model = small_model()
    first = export(tmp_path / "a", model=model)
    model.embedding.store.rows("item")[5] += 1.0
    assert export(tmp_path / "a", model=model, overwrite=True).space_id != first.space_id
    assert verify_bundle(tmp_path / "a").golden_rows == 50
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_an_existing_folder_is_kept(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(ExportError, match="out exists; choose another folder, or set overwrite"):
        export(tmp_path / "out")
    (tmp_path / "out" / "precious").touch()
    with pytest.raises(ExportError, match=r"is no bundle \(it has no manifest.json\), so it is not overwritten"):
        export(tmp_path / "out", overwrite=True)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["precious"]


def test_weights_changed_on_the_way_into_the_graph_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = bundle.trace

    def tampered(graph: ServingGraph, schema: Schema) -> torch.export.ExportedProgram:
        with torch.no_grad():
            graph.model.embedding.store.stack(1).mul_(1.001)  # type: ignore[union-attr, operator]
        return right(graph, schema)

    monkeypatch.setattr(bundle, "trace", tampered)
    with pytest.raises(ExportError, match=r"golden row \d+: served logit .* would not serve what was trained"):
        export(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_vector_changed_on_the_way_to_its_file_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = bundle.write_vectors

    def tampered(*arguments: Any) -> Any:
        record = right(*arguments)
        path = arguments[-1] / "vectors.parquet"
        frame = pl.read_parquet(path)
        vectors = frame["vector"].to_numpy().copy()
        vectors[7, 2] = np.nextafter(vectors[7, 2], np.float32(9))
        frame.with_columns(vector=pl.Series(vectors, dtype=frame.schema["vector"])).write_parquet(path)
        return record

    monkeypatch.setattr(bundle, "write_vectors", tampered)
    item = shop.fitted().vocabularies["item"].values[7]
    with pytest.raises(ExportError, match=f"the vector of item {item} is not the trained one"):
        export(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_golden_scores_of_the_run_must_still_hold(tmp_path: Path) -> None:
    model = small_model().eval()
    golden = shop.rows().tail(50)
    logits = trained_logits(model, SMALL, golden)
    export(tmp_path / "right", model=model, golden=golden.with_columns(pl.Series(GOLDEN_LOGIT, logits)))
    logits[31] += 0.001
    with pytest.raises(
        ExportError, match=r"golden row 31: the model as served says .* these are not the weights of that run"
    ):
        export(tmp_path / "wrong", model=model, golden=golden.with_columns(pl.Series(GOLDEN_LOGIT, logits)))
    assert [path.name for path in tmp_path.iterdir()] == ["right"]


def test_the_model_goes_on_training_after_export(tmp_path: Path) -> None:
    model = small_model().train()
    export(tmp_path / "a", model=model)
    assert model.training
    with pytest.raises(ExportError, match="golden has no rows"):
        export(tmp_path / "b", model=model, golden=shop.rows().head(0))
    assert model.training


def test_a_target_that_cannot_be_written_fails(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ExportError, match=r"cannot write the bundle .*out"):
        export(tmp_path / "file" / "out")


def test_without_an_item_the_feature_must_be_named(tmp_path: Path) -> None:
    fitted = replace(SMALL, schema=Schema(features=(shop.SCHEMA["city"],)))
    with pytest.raises(ExportError, match="no feature has role 'item'; name the feature"):
        export(tmp_path / "out", fitted=fitted)


def test_id_maps_that_no_graph_reads_stay_out_of_the_bundle(tmp_path: Path) -> None:
    model = shop.trained("hashed", city={"table": "full"}, row_store="torch")
    export(tmp_path / "bundle", model=model, fitted=shop.fitted())
    maps = sorted(path.stem for path in (tmp_path / "bundle" / "schema" / "vocabulary").iterdir())
    assert maps == ["city", "item"]  # read by the graph; exported. Not those of user and tags
    manifest = Manifest.read(tmp_path / "bundle")
    on_disk = sum(path.stat().st_size for path in (tmp_path / "bundle").rglob("*") if path.is_file())
    head = (tmp_path / "bundle" / "manifest.json").stat().st_size
    assert on_disk == sum(file.bytes for file in manifest.files.values()) + head
    assert manifest.mapping_version == shop.fitted().version
    assert verify_bundle(tmp_path / "bundle").golden_rows == 50
    server = load(tmp_path / "bundle")
    logits = trained_logits(model.eval(), shop.fitted(), shop.rows())
    np.testing.assert_allclose(server.score(shop.rows()), 1 / (1 + np.exp(-logits)), rtol=0, atol=1e-6)
    assert set(server.unseen) == {"item", "city", "history"}


@pytest.mark.parametrize("dtype", ["float16", "int8"])
@pytest.mark.parametrize("kind", ["pep", "optembed", "dedup", "cafe"])
def test_rows_of_compact_tables_are_in_the_file_in_the_served_type(tmp_path: Path, kind: str, dtype: str) -> None:
    mapping, frame = _many_items()
    table = {"kind": kind, "ratio": 0.25}
    settings = EmbeddingConfig(embedding_dim=16, table=table, row_store="torch", served_dtype=dtype)
    embedding = FeatureEmbedding(mapping, settings)
    embedding.store.stack(16).uniform_(-1, 1, generator=torch.Generator().manual_seed(0))
    for each in embedding.all_tables().values():
        each.settle(embedding.store)
    model = MODELS["dcnv2"](hidden_units=(8,)).build(embedding)
    manifest = export(tmp_path / kind, model=model, fitted=mapping, golden=frame.head(50))
    assert (
        0.98 * embedding.served_bytes
        <= manifest.bytes["embeddings"]
        <= embedding.served_bytes
        <= 0.25 * 4 * 20_003 * 16
    )
    assert 0 < manifest.bytes["graph"] < 150_000
    assert manifest.difference["logit"] <= 1e-5 and 0 < manifest.difference["compaction"] < 0.05
    vectors = read_vectors(tmp_path / kind)
    served = feature_vectors(embedding.compact(), "item", torch.arange(3, 20_003) if kind != "cafe" else _keys(mapping))
    np.testing.assert_array_equal(vectors, served.numpy())


def _keys(mapping: FittedSchema) -> torch.Tensor:
    return torch.from_numpy(mapping.vocabularies["item"].keys.copy())


def _many_items() -> tuple[FittedSchema, pl.DataFrame]:
    draw = np.random.default_rng(0)
    frame = pl.DataFrame({"item": draw.permutation(20_000), "click": draw.integers(0, 2, 20_000)})
    schema = Schema.parse({"features": [{"name": "item", "role": "item"}], "labels": [{"name": "click"}]})
    return fit(frame, schema), frame


@pytest.mark.parametrize("kind", ["full", "hashed", "multiplexed", "int8"])
def test_the_file_of_the_graph_holds_the_planned_bytes_and_little_else(tmp_path: Path, kind: str) -> None:
    mapping, frame = _many_items()
    table = {"kind": kind} if kind in ("full", "int8") else {"kind": kind, "ratio": 0.25}
    embedding = FeatureEmbedding(mapping, EmbeddingConfig(embedding_dim=16, table=table, row_store="torch"))
    for each in embedding.all_tables().values():
        each.settle(embedding.store)
    model = MODELS["dcnv2"](hidden_units=(8,)).build(embedding)
    sizes = export(tmp_path / kind, model=model, fitted=mapping, golden=frame.head(50)).bytes
    file = (tmp_path / kind / "ranker.pt2").stat().st_size
    assert sizes["embeddings"] == embedding.served_bytes
    assert sizes["id_maps"] == (12 * 20_000 if kind in ("full", "int8") else 0)
    assert sizes["id_maps"] == embedding_plan(embedding)["id_map_bytes"].sum()
    dense = sum(4 * parameter.numel() for name, parameter in model.named_parameters() if "embedding" not in name)
    assert dense <= sizes["dense"] < dense + 64  # and where the features' columns and tables begin
    assert file == sum(sizes.values())
    assert 0 < sizes["graph"] < 100_000


def test_int8_rows_are_proved_against_the_compact_model_and_their_rounding_is_told(tmp_path: Path) -> None:
    settings = EmbeddingConfig(embedding_dim=4, row_store="torch", served_dtype="int8")
    embedding = FeatureEmbedding(SMALL, settings)
    embedding.store.stack(4).uniform_(-1, 1, generator=torch.Generator().manual_seed(0))
    model = MODELS["dcnv2"](hidden_units=(8,)).build(embedding)
    manifest = export(tmp_path / "bundle", model=model)
    assert 1e-6 < manifest.difference["compaction"] < 0.05
    assert manifest.difference["logit"] <= 1e-5
    assert manifest.bytes["embeddings"] == embedding.served_bytes < embedding.bytes / 2
    assert verify_bundle(tmp_path / "bundle") is not None
