"""Rows with every kind of feature, small enough to check by hand."""

import polars as pl

from recembed.schema.feature import Schema

SCHEMA = Schema.parse(
    {
        "features": [
            {"name": "user", "role": "user"},
            {"name": "city", "min_count": 2},
            {"name": "genres", "kind": "bag", "separator": "|"},
            {"name": "history", "kind": "sequence", "shares": "item", "max_length": 2},
            {"name": "item", "role": "item"},
            {"name": "tags", "kind": "bag", "weights": "tag_weights"},
            {"name": "age", "kind": "numeric"},
            {"name": "vector", "kind": "numeric", "width": 2},
        ],
        "labels": [{"name": "click"}, {"name": "liked", "column": "rating", "positive_from": 4}],
    }
)


def frame() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "user": [10, 20, 10, None],
            "city": ["Rome", "Oslo", "Rome", "Bonn"],
            "genres": ["a|b", "", None, "b"],
            "history": [[7, 8, 9], [], [9], None],
            "item": [7, 7, 9, 5],
            "tags": [["x"], ["x", "y"], [], ["z"]],
            "tag_weights": [[1.0], [0.5, 2.0], [], [3.0]],
            "age": [20.0, None, float("nan"), 40.0],
            "vector": [[1.0, 2.0], [3.0, 4.0], None, [5.0, 6.0]],
            "click": [1, 0, 0, 1],
            "rating": [5, 3, 4, 1],
        }
    )
