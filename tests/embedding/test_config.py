"""Settings of features that do not fit them: each is refused before anything is built."""

from typing import Any

import pytest

from recembed.embedding import EmbeddingConfig
from recembed.errors import ConfigError
from recembed.schema.feature import Feature, Schema
from tests.embedding.fixtures import SCHEMA


def check(schema: Schema = SCHEMA, **features: Any) -> None:
    EmbeddingConfig.model_validate({"features": features}).check(schema)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("itm", {"pooling": "sum"}, r"features: 'itm' is not in the schema; did you mean 'item'"),
        ("user", {"pooling": "sum"}, r"user\.pooling = 'sum': belongs to a bag .* is categorical; leave it out"),
        (
            "genres",
            {"pooling": "none"},
            r"genres\.pooling = 'none': a bag has no order; make it a sequence, or use sum",
        ),
        (
            "age",
            {"table": "hashed"},
            r"age\.table: belongs to features with ids; 'age' is numeric, set numeric instead",
        ),
        ("history", {"table": "hashed"}, r"history\.table: 'history' shares the table of 'item'; set it there"),
        ("user", {"numeric": "linear"}, r"user\.numeric: 'user' is categorical; set table instead"),
    ],
)
def test_options_that_do_not_fit_a_feature(name: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=rf"embeddings\.(features\.)?{words}"):
        check(**{name: options})


def test_weights_have_no_maximum() -> None:
    schema = Schema(features=(Feature(name="tags", kind="bag", weights="scores"),))
    check(schema, tags={"pooling": "mean"})
    with pytest.raises(ConfigError, match=r"tags\.pooling = 'max' cannot use weights; use sum or mean, or drop the"):
        check(schema, tags={"pooling": "max"})
