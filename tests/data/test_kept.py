"""Reading once gives the very mapping and arrays of reading twice."""

import numpy as np
import polars as pl
import pytest

from recembed.data.encode import encode
from recembed.data.fit import fit
from recembed.data.kept import fit_and_keep
from recembed.errors import DataError
from tests.data.rows import SCHEMA, frame


@pytest.mark.parametrize("key_features", [frozenset(), frozenset({"city", "tags"})])
def test_equal_to_fit_and_encode(key_features: frozenset[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recembed.data.columns.BLOCK_ROWS", 3)
    rows = pl.concat([frame()] * 5)
    fitted, kept = fit_and_keep(rows, SCHEMA)
    twice = encode(rows, fit(rows, SCHEMA), key_features=key_features)
    once = kept.encode(key_features)
    assert fitted.version == twice.fitted.version
    assert once.unseen == twice.unseen
    assert once.arrays().keys() == twice.arrays().keys()
    for name, array in once.arrays().items():
        assert array.dtype == twice.arrays()[name].dtype
        assert np.array_equal(array, twice.arrays()[name], equal_nan=name == "numeric")


def test_kept_rows_are_encoded_once() -> None:
    _, kept = fit_and_keep(frame(), SCHEMA)
    kept.encode()
    with pytest.raises(DataError, match=r"these kept rows were encoded before and are freed"):
        kept.encode()


def test_bad_rows_are_refused_as_by_fit() -> None:
    with pytest.raises(DataError, match=r"the data has no rows"):
        fit_and_keep(frame().clear(), SCHEMA)
    with pytest.raises(DataError, match=r"label 'click': all 4 rows are 1"):
        fit_and_keep(frame().with_columns(click=pl.lit(1)), SCHEMA)
