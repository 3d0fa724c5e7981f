"""The door: lists of every type, text cells, and files that break off while they are read."""

from pathlib import Path

import polars as pl
import pytest

from recembed.data.columns import blocks, id_types, jagged_ids, types_of
from recembed.data.encode import encode_to
from recembed.data.fit import fit
from recembed.errors import DataError
from recembed.schema.feature import Feature, Schema

BAG = Feature(name="tags", kind="bag", separator=" ")


@pytest.mark.parametrize(
    ("column", "ids", "offsets"),
    [
        (pl.Series([[1, 2], [], None, [3]]), [1, 2, 3], [0, 2, 2, 2, 3]),
        (pl.Series([[1, 2], [3, 4]], dtype=pl.Array(pl.Int32, 2)), [1, 2, 3, 4], [0, 2, 4]),
        (pl.Series(["b a", "", None, " c "]), ["b", "a", "c"], [0, 2, 2, 2, 3]),
        (pl.Series([None, None]), [], [0, 0, 0]),
        (pl.Series([["x", None]]), ["x", None], [0, 2]),
    ],
)
def test_bags_of_every_type(column: pl.Series, ids: list, offsets: list[int]) -> None:
    block = column.alias("tags").to_frame()
    kind = id_types(block.schema, Schema(features=(BAG,)), labels=False)["tags"]
    found = jagged_ids(block, BAG, kind)
    assert found.ids.to_list() == ids
    assert found.offsets.tolist() == offsets


def test_max_length_keeps_the_last_ids_and_their_weights() -> None:
    feature = Feature(name="tags", kind="bag", weights="share", max_length=2)
    block = pl.DataFrame({"tags": [[1, 2, 3], [4]], "share": [[0.1, 0.2, 0.3], [0.4]]})
    found = jagged_ids(block, feature, "int")
    assert found.ids.to_list() == [2, 3, 4]
    assert found.weights is not None
    assert found.weights.tolist() == pytest.approx([0.2, 0.3, 0.4])


@pytest.mark.parametrize(
    ("share", "message"),
    [
        ([[0.1], [float("nan")]], r"column 'share': weights must be finite numbers"),
        ([[0.1], [None]], r"column 'share': weights must be finite numbers"),
        ([[0.1, 0.2], [0.1]], r"row 0 of its block has 1 ids but another number of weights in 'share'"),
        ([[0.1], None], r"row 1 of its block has 1 ids but another number of weights"),
    ],
)
def test_bad_weights_are_refused(share: list, message: str) -> None:
    feature = Feature(name="tags", kind="bag", weights="share")
    with pytest.raises(DataError, match=message):
        jagged_ids(pl.DataFrame({"tags": [[1], [2]], "share": share}), feature, "int")


def test_weights_that_are_no_lists_are_refused() -> None:
    schema = Schema(features=(Feature(name="tags", kind="bag", weights="share"),))
    with pytest.raises(DataError, match=r"feature 'tags': weights column 'share' has type Float64: expected a list"):
        id_types(pl.Schema({"tags": pl.List(pl.Int64), "share": pl.Float64}), schema, labels=False)


def test_a_file_that_breaks_off_while_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("x,y\n" + "1,2\n" * 500 + "word,2\n")
    frame = pl.scan_csv(tmp_path / "rows.csv")
    with pytest.raises(DataError, match=r"cannot read the data: ") as caught:
        list(blocks(frame, Schema(features=(Feature(name="x"),)), labels=False))
    assert isinstance(caught.value.__cause__, pl.exceptions.PolarsError)
    with pytest.raises(DataError, match=r"cannot read the data: "):
        types_of(pl.scan_parquet(tmp_path / "rows.csv"))


def test_a_file_that_vanished_is_not_blamed_on_the_output(tmp_path: Path) -> None:
    pl.DataFrame({"x": [1, 2]}).write_parquet(tmp_path / "rows.parquet")
    frame = pl.scan_parquet(tmp_path / "rows.parquet")
    schema = Schema(features=(Feature(name="x"),))
    fitted = fit(frame, schema)
    (tmp_path / "rows.parquet").unlink()
    with pytest.raises(DataError, match=r"cannot read the data: .*rows\.parquet"):
        encode_to(frame, fitted, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
