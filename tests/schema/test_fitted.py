"""The fitted schema: version, round trip on disk, and refusals."""

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from recembed.data.fit import fit
from recembed.errors import CheckpointError, DataError
from recembed.schema.feature import Schema
from recembed.schema.fitted import FittedSchema, NumericColumn
from tests.data.rows import SCHEMA, frame


@pytest.fixture(scope="module")
def fitted() -> FittedSchema:
    return fit(frame(), SCHEMA)


def test_round_trip(fitted: FittedSchema, tmp_path: Path) -> None:
    fitted.save(tmp_path / "fitted")
    loaded = FittedSchema.load(tmp_path / "fitted")
    assert loaded.version == fitted.version
    assert loaded.schema == fitted.schema
    assert (loaded.rows, loaded.key_types) == (fitted.rows, fitted.key_types)
    assert (loaded.missing_rates, loaded.label_rates) == (fitted.missing_rates, fitted.label_rates)
    for name, vocabulary in fitted.vocabularies.items():
        other = loaded.vocabularies[name]
        assert other.keys.tolist() == vocabulary.keys.tolist()
        assert other.row_counts().tolist() == vocabulary.row_counts().tolist()
        assert other.values.to_list() == vocabulary.values.to_list()
    assert loaded.numeric["age"].to_json() == fitted.numeric["age"].to_json()
    assert not list((tmp_path / "fitted").rglob("*.tmp"))


def test_saving_again_replaces_the_old_files(fitted: FittedSchema, tmp_path: Path) -> None:
    fit(frame()[:2], SCHEMA).save(tmp_path)
    fitted.save(tmp_path)
    assert FittedSchema.load(tmp_path).version == fitted.version


def test_names_that_are_no_file_names_are_saved(tmp_path: Path) -> None:
    schema = Schema.parse({"features": [{"name": "a/b:c", "column": "user"}]})
    fitted = fit(frame(), schema)
    fitted.save(tmp_path)
    assert FittedSchema.load(tmp_path).num_embeddings("a/b:c") == 5


@pytest.mark.parametrize("name", ["schema.yaml", "vocabulary/item.parquet"])
def test_a_changed_byte_is_refused_and_its_file_named(fitted: FittedSchema, tmp_path: Path, name: str) -> None:
    fitted.save(tmp_path)
    content = bytearray((tmp_path / name).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / name).write_bytes(bytes(content))
    with pytest.raises(DataError, match=rf"{name} was changed after it was saved; restore it or fit again"):
        FittedSchema.load(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"user": "int"', '"user": "string"', "was changed after it was saved"),
        ('"rows": 4', '"rowz": 4', "is damaged"),
        ("{", "", "is damaged"),
    ],
)
def test_a_changed_record_is_refused(fitted: FittedSchema, tmp_path: Path, old: str, new: str, message: str) -> None:
    fitted.save(tmp_path)
    path = tmp_path / "fitted.json"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(DataError, match=rf"fitted\.json {message}"):
        FittedSchema.load(tmp_path)


def test_a_folder_without_a_fitted_schema_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"fitted\.json does not exist; a fitted schema is a folder written by"):
        FittedSchema.load(tmp_path)


def test_a_folder_that_cannot_be_written_is_refused(fitted: FittedSchema, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot save the fitted schema in .*file"):
        fitted.save(tmp_path / "file")


def test_the_version_names_the_mapping_and_nothing_else(fitted: FittedSchema) -> None:
    item = fitted.vocabularies["item"]
    recounted = replace(
        fitted, vocabularies=fitted.vocabularies | {"item": replace(item, counts=item.counts + 1)}, rows=9
    )
    assert recounted.version == fitted.version
    turned = replace(item, keys=item.keys[::-1].copy())
    assert replace(fitted, vocabularies=fitted.vocabularies | {"item": turned}).version != fitted.version
    more_buckets = replace(item, oov_buckets=2)
    assert replace(fitted, vocabularies=fitted.vocabularies | {"item": more_buckets}).version != fitted.version
    age = replace(fitted.numeric["age"], mean=fitted.numeric["age"].mean + 1)
    assert replace(fitted, numeric=fitted.numeric | {"age": age}).version != fitted.version
    assert replace(fitted, key_types=fitted.key_types | {"item": "string"}).version != fitted.version


def test_another_version_is_refused_with_both_versions(fitted: FittedSchema) -> None:
    fitted.check_version(fitted.version, "checkpoint run/checkpoint")
    with pytest.raises(
        CheckpointError,
        match=rf"checkpoint run/checkpoint was made under mapping version 000000000000, .*{fitted.version[:12]}",
    ):
        fitted.check_version("0" * 64, "checkpoint run/checkpoint")


def test_questions_about_features(fitted: FittedSchema) -> None:
    assert fitted.vocabulary_of("history") is fitted.vocabularies["item"]
    assert fitted.num_embeddings("history") == 3 + 4
    assert fitted.vocabulary_of("age") is None
    assert fitted.numeric_columns == (NumericColumn("age", 0, 1), NumericColumn("vector", 1, 2))


def test_id_dropout_follows_the_share_of_folded_rows() -> None:
    rows = pl.DataFrame({"x": ["a"] * 1000 + ["b"], "y": [0, 1] * 500 + [0]})

    def dropout(**feature: object) -> float:
        schema = Schema.parse({"features": [{"name": "x", **feature}], "labels": [{"name": "y"}]})
        return fit(rows, schema).id_dropout("x")

    assert dropout() == 0.005  # nothing folds, so the bucket would never be trained
    assert dropout(min_count=2) == 0.005  # 1 of 1,001 rows is fewer than 0.1 %
    assert dropout(min_count=2000) == 0
    assert dropout(id_dropout=0.25) == 0.25
    assert dropout(vocabulary=False) == 0


def test_a_copy_with_some_maps_keeps_the_version_and_the_rest_of_the_mapping(
    fitted: FittedSchema, tmp_path: Path
) -> None:
    fitted.with_maps({"item"}).save(tmp_path)
    assert [path.name for path in (tmp_path / "vocabulary").iterdir()] == ["item.parquet"]
    part = FittedSchema.load(tmp_path)
    assert part.version == fitted.version
    assert list(part.vocabularies) == ["item"] and len(fitted.vocabularies) > 1
    assert part.key_types == fitted.key_types
    with pytest.raises(DataError, match="feature 'user' has no vocabulary"):
        part.num_embeddings("user")
    assert fitted.with_maps(list(fitted.vocabularies)) is fitted


def test_a_changed_map_of_a_partial_copy_is_refused(fitted: FittedSchema, tmp_path: Path) -> None:
    fitted.with_maps({"item"}).save(tmp_path)
    path = tmp_path / "fitted.json"
    path.write_text(path.read_text().replace('"oov_buckets": 1', '"oov_buckets": 2', 1))
    with pytest.raises(DataError, match=r"fitted\.json was changed after it was saved"):
        FittedSchema.load(tmp_path)
