"""``data.where``: which rows a run keeps before it cuts them."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recembed.config import RunConfig
from recembed.errors import ConfigError, DataError
from recembed.run import open_data
from tests.run.clicks import clicks, settings


def kept(tmp_path: Path, **where: Any) -> pl.DataFrame:
    """Return all rows of the three parts, training rows first."""
    path = tmp_path / "clicks.parquet"
    clicks().with_columns(price=pl.when(pl.col("time") == 7).then(None).otherwise(1.5)).write_parquet(path)
    splits = open_data(RunConfig.parse(settings(path, data={"path": str(path), "where": where}))).splits
    return pl.concat([part for _, part in splits.items()]).collect()


def test_rows_with_a_listed_value_in_every_column_stay_and_are_cut_after_that(tmp_path: Path) -> None:
    rows = kept(tmp_path, item=[1, 2, 3], user=["u01", "u02", "u05"])
    expected = clicks().filter(pl.col("item").is_in([1, 2, 3]) & pl.col("user").is_in(["u01", "u02", "u05"]))
    assert 3 < rows.height == expected.height
    assert rows["time"].to_list() == expected["time"].to_list()


def test_numbers_are_numbers_whatever_their_width_and_a_missing_value_is_never_listed(tmp_path: Path) -> None:
    assert kept(tmp_path, price=[1.5, 2]).height == 1199
    assert set(kept(tmp_path, click=[1])["click"].to_list()) == {1}


def test_what_does_not_fit_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.where: column 'itm' is not in the data; did you mean 'item'"):
        kept(tmp_path, itm=[1])
    with pytest.raises(DataError, match=r"data\.where: '1' in 'item': expected values of type Int64"):
        kept(tmp_path, item=["1"])
    with pytest.raises(DataError, match=r"data\.where: True in 'item'"):
        kept(tmp_path, item=[True])
    with pytest.raises(DataError, match=r"data\.where: 1\.5 in 'item'"):
        kept(tmp_path, item=[1.5])
    with pytest.raises(ConfigError, match=r"data\.where\.item"):
        kept(tmp_path, item=[])
