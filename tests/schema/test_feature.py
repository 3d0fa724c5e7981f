"""Parsing a schema: what is accepted, and the words of every refusal."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recembed.errors import ConfigError
from recembed.schema.feature import Feature, Label, Schema

GENRES = {"name": "genres", "kind": "bag", "separator": "|"}


def refused(*features: dict[str, Any], **others: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        Schema.parse({"features": list(features), **others})
    return str(caught.value)


def test_parts_of_a_schema() -> None:
    schema = Schema.parse(
        {
            "features": [
                {"name": "user_id", "role": "user"},
                {"name": "film", "column": "item_id", "role": "item", "min_count": 2},
                {"name": "history", "kind": "sequence", "shares": "film", "max_length": 20},
                {"name": "genres", "kind": "bag", "separator": "|", "weights": "shares"},
                {"name": "age", "kind": "numeric"},
                {"name": "vector", "kind": "numeric", "width": 8},
            ],
            "labels": [{"name": "like", "column": "rating", "positive_from": 4}],
            "timestamp": "time",
        }
    )
    assert [feature.name for feature in schema.categorical] == ["user_id", "film"]
    assert [feature.name for feature in schema.jagged] == ["history", "genres"]
    assert [feature.name for feature in schema.numeric] == ["age", "vector"]
    assert schema.names == ("user_id", "film", "history", "genres", "age", "vector")
    assert (schema["film"].source, schema["history"].source) == ("item_id", "history")
    assert (schema["history"].vocabulary_name, schema["film"].vocabulary_name) == ("film", "film")
    assert schema.labels[0].source == "rating"
    user, item = schema.role("user"), schema.role("item")
    assert user is not None
    assert item is not None
    assert (user.name, item.name) == ("user_id", "film")
    assert Schema.parse({"features": []}).role("user") is None


def test_yaml_text_and_file(tmp_path: Path) -> None:
    schema = Schema(features=(Feature(name="a", kind="bag", separator="|"),), labels=(Label(name="y"),), timestamp="t")
    text = schema.to_yaml()
    assert text == "features:\n- name: a\n  kind: bag\n  separator: '|'\nlabels:\n- name: y\ntimestamp: t\n"
    path = tmp_path / "schema.yaml"
    path.write_text(text)
    assert Schema.from_yaml(text) == Schema.from_yaml(path) == schema


NAMES = st.text("abcdefgh_", min_size=1, max_size=6)


@st.composite
def features(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(["categorical", "bag", "sequence", "numeric"]))
    raw: dict[str, Any] = {"name": draw(NAMES), "kind": kind, "column": draw(st.none() | NAMES)}
    if kind in ("bag", "sequence"):
        raw |= {
            "separator": draw(st.none() | st.sampled_from("|, ")),
            "max_length": draw(st.none() | st.integers(1, 99)),
        }
    if kind == "numeric":
        return raw | {"width": draw(st.integers(1, 64))}
    return raw | {
        "min_count": draw(st.integers(1, 10)),
        "top_k": draw(st.none() | st.integers(1, 10)),
        "oov_buckets": draw(st.integers(1, 5)),
        "id_dropout": draw(st.just("auto") | st.floats(0, 0.5)),
        "vocabulary": draw(st.booleans()),
    }


@given(st.lists(features(), max_size=5, unique_by=lambda raw: raw["name"]))
def test_any_schema_survives_yaml(raw: list[dict[str, Any]]) -> None:
    schema = Schema.parse({"features": raw, "labels": [{"name": "LABEL", "positive_from": 3.5}]})
    assert Schema.from_yaml(schema.to_yaml()) == schema


def test_unknown_keys_offer_the_nearest() -> None:
    assert refused({"name": "a", "knd": "bag"}) == "schema: features.0.knd: unknown key 'knd'; did you mean 'kind'?"
    assert "unknown key 'lables'; did you mean 'labels'?" in refused(lables=[])
    assert "labels.0.colum: unknown key 'colum'; did you mean 'column'?" in refused(
        labels=[{"name": "y", "colum": "z"}]
    )


def test_required_and_wrong_values_are_placed() -> None:
    assert "features.0.name: required, but not given" in refused({"kind": "bag"})
    message = refused({"name": "a", "kind": "list"})
    assert "features.0.kind = 'list': Input should be 'categorical', 'bag', 'sequence' or 'numeric'" in message
    assert "features.0.min_count = 0:" in refused({"name": "a", "min_count": 0})
    assert "features.0.role = 'shop':" in refused({"name": "a", "role": "shop"})
    assert "features.0.name = '':" in refused({"name": ""})
    with pytest.raises(ConfigError, match="features: required, but not given"):
        Schema.parse({})


@pytest.mark.parametrize("raw", [None, [], "features"])
def test_schema_that_is_no_mapping(raw: object) -> None:
    with pytest.raises(ConfigError, match=r"^schema"):
        Schema.parse(raw)


def test_names_must_differ() -> None:
    assert "name 'a' stands twice; every feature and label needs its own name" in refused({"name": "a"}, {"name": "a"})
    assert "name 'a' stands twice" in refused({"name": "a"}, labels=[{"name": "a"}])


def test_one_feature_per_role() -> None:
    message = refused({"name": "a", "role": "user"}, {"name": "b", "role": "user"})
    assert "role 'user' is given to a and b; give it to one feature" in message


def test_settings_of_another_kind() -> None:
    assert "width = 3 belongs to numeric features; kind is 'categorical'" in refused({"name": "a", "width": 3})
    for setting in ({"separator": "|"}, {"weights": "w"}, {"max_length": 5}):
        message = refused({"name": "a", **setting})
        assert "feature 'a': separator, weights and max_length belong to kind bag or sequence" in message


@pytest.mark.parametrize(
    "other",
    [
        {"name": "b", "shares": "nobody"},
        {"name": "b", "shares": "b"},
        {"name": "b", "shares": "n"},
        {"name": "b", "shares": "c"},
        {"name": "b", "kind": "numeric", "shares": "a"},
    ],
)
def test_shares_needs_a_feature_with_a_table_of_its_own(other: dict[str, Any]) -> None:
    others = [{"name": "a"}, {"name": "c", "shares": "a"}, {"name": "n", "kind": "numeric"}]
    message = refused(*others, other)
    assert (
        f"feature 'b': shares = {other['shares']!r}: expected another categorical, bag or sequence feature" in message
    )


def test_feature_by_name() -> None:
    schema = Schema.parse({"features": [GENRES]})
    assert schema["genres"].separator == "|"
    with pytest.raises(ConfigError, match="feature 'genre' is not in the schema; did you mean 'genres'"):
        schema["genre"]


def test_records_are_frozen() -> None:
    feature = Feature(name="a")
    with pytest.raises(ValueError, match="frozen"):
        feature.name = "b"  # type: ignore[misc]
