"""T-JEPA: what moves and what does not, which columns are seen, collapse, and what its vectors know."""

import logging
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from pydantic import ValidationError

from recembed.errors import DataError
from recembed.items.encode import encode_items
from recembed.items.entity_columns import Cells, EntityColumns
from recembed.items.rank import rank_me
from recembed.items.settings import ContentConfig
from recembed.items.t_jepa import TJEPA, TJEPAConfig, draw_columns, train_t_jepa
from recembed.items.vector_file import write_vectors

SMALL = {"token_dim": 8, "heads": 2, "layers": 1, "batch_size": 64, "learning_rate": 3e-3}


def config(**changes: object) -> TJEPAConfig:
    return TJEPAConfig.model_validate(SMALL | changes)


def table(rows: int = 300) -> pl.DataFrame:
    """Two hidden numbers, seen by seven columns, one of them text, some cells missing; and a column of noise."""
    draw = np.random.default_rng(0)
    hidden = draw.normal(size=(rows, 2))
    seen = hidden @ draw.normal(size=(2, 6)) + draw.normal(0, 0.3, (rows, 6))
    frame = pl.DataFrame({f"x{place}": seen[:, place] for place in range(6)})
    return frame.with_columns(
        side=pl.Series(np.where(hidden[:, 0] + draw.normal(0, 0.3, rows) > 0, "left", "right")),
        shop=pl.Series(draw.integers(0, 4, rows)),
        x0=pl.when(pl.int_range(rows) % 7 == 0).then(None).otherwise(pl.col("x0")),
    )


def cells_and_model(**changes: object) -> tuple[Cells, TJEPA]:
    frame = table()
    columns = EntityColumns.fit(frame, ["shop"])
    torch.manual_seed(0)
    return columns.encode(frame), TJEPA(columns, config(**changes))


def drawn(rows: int, seed: int = 0) -> tuple[torch.Tensor, list[torch.Tensor]]:
    return draw_columns(rows, 8, config(targets=3), torch.Generator().manual_seed(seed))


def test_the_target_encoder_gets_no_gradient_and_everything_else_does() -> None:
    cells, model = cells_and_model()
    model.train().loss(cells, *drawn(len(cells))).backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in model.target.parameters())
    moved = [*model.context.named_parameters(), *model.predictor.named_parameters()]
    assert [name for name, parameter in moved if parameter.grad is None or not parameter.grad.any()] == []


def test_the_target_encoder_is_a_moving_average() -> None:
    _, model = cells_and_model()
    with torch.no_grad():
        model.target.registers.fill_(2.0)
        model.context.registers.fill_(1.0)
    model.move_target(0.75)
    assert model.target.registers.unique().tolist() == [1.75]  # 0.75 * 2 + 0.25 * 1
    model.move_target(0.75)
    assert model.target.registers.unique().tolist() == [1.5625]
    assert model.context.registers.unique().tolist() == [1.0]


def test_columns_that_are_wanted_are_never_seen() -> None:
    sizes = set()
    for seed in range(50):
        seen, wanted = drawn(5, seed)
        for places in wanted:
            together = torch.cat([seen, places], dim=1)
            assert all(len(set(row)) == len(row) for row in together.tolist())
            assert 2 <= seen.shape[1] <= 5 and 2 <= places.shape[1] <= 4  # shares of 8 columns
        sizes |= {seen.shape[1]}
    assert sizes == {2, 3, 4, 5}
    seen, wanted = draw_columns(3, 2, config(targets=1), torch.Generator().manual_seed(0))
    assert (seen + wanted[0]).tolist() == [[1]] * 3  # of two columns one is seen, the other wanted


def test_the_context_encoder_reads_only_what_it_sees_and_the_target_reads_all() -> None:
    cells, model = cells_and_model()
    seen = torch.tensor([[1, 4]]).expand(len(cells), -1)
    other = Cells(cells.numbers.clone(), cells.codes)
    other.numbers[:, 2] += 1
    model.eval()
    assert torch.equal(model.context(cells, seen)[0], model.context(other, seen)[0])
    assert not torch.allclose(model.target(cells)[0], model.target(other)[0], atol=1e-3)


def test_the_predictor_is_told_which_column_is_wanted() -> None:
    cells, model = cells_and_model()
    model.eval()
    context = model.context(cells, torch.tensor([[0, 1]]).expand(len(cells), -1))[0]
    first, second = (model.predictor(context, torch.full((len(cells), 1), place)) for place in (5, 6))
    assert not torch.allclose(first, second, atol=1e-3)


def test_vectors_are_the_same_every_time_and_do_not_depend_on_the_batch() -> None:
    frame = table()
    settings = config(dropout=0.3, epochs=2, categorical=("shop",))
    (model, ranks), (again, same) = train_t_jepa(frame, settings), train_t_jepa(frame, settings)
    vectors = model.vectors(frame)
    assert vectors.shape == (300, model.embedding_dim) == (300, 64) and np.isfinite(vectors).all()
    assert np.array_equal(vectors, model.vectors(frame)) and np.array_equal(vectors, again.vectors(frame))
    assert ranks == same and len(ranks) == 2
    assert np.allclose(model.vectors(frame[7:8].select(reversed(frame.columns))), vectors[7:8], atol=1e-5)
    seen = drawn(300)
    with torch.no_grad():
        losses = [model.train().loss(model.columns.encode(frame), *seen).item() for _ in range(2)]
    assert losses[0] != losses[1]  # dropout, in training


def test_training_predicts_cells_that_are_not_seen() -> None:
    frame = table()
    settings = config(epochs=25, categorical=("shop",), learning_rate=5e-3, momentum=0.95)
    model, ranks = train_t_jepa(frame, settings)
    cells = model.columns.encode(frame)
    with torch.no_grad():
        spread = model.target(cells)[0].var(0).mean()  # the error of the best constant token of each column
        errors = [model.loss(cells, *drawn(300)) / spread for cells in (cells, shuffled(cells))]
    assert errors[0] < 0.8 * min(errors[1], 1)
    assert min(ranks) > 2


def shuffled(cells: Cells) -> Cells:
    """Columns that have nothing in common: each in an order of its own."""
    draw = torch.Generator().manual_seed(0)
    numbers = torch.stack([column[torch.randperm(300, generator=draw)] for column in cells.numbers.T], dim=1)
    codes = torch.stack([column[torch.randperm(300, generator=draw)] for column in cells.codes.T], dim=1)
    return Cells(numbers, codes)


def test_rank_me_by_hand() -> None:
    shares = np.array([3.0, 1.0]) / 4
    assert rank_me(torch.diag(torch.tensor([3.0, 1.0]))) == pytest.approx(np.exp(-(shares * np.log(shares)).sum()))
    assert rank_me(torch.zeros(3, 2)) == 1.0


def test_a_collapse_is_told(caplog: pytest.LogCaptureFixture) -> None:
    frame = pl.DataFrame({"a": [1.0] * 20, "b": ["x"] * 20})  # rows that are all alike have but one vector
    with caplog.at_level(logging.WARNING, "recembed.items"):
        _, ranks = train_t_jepa(frame, config(epochs=3))
    assert ranks == [1.0, 1.0, 1.0]
    assert [record.message for record in caplog.records] == [
        "T-JEPA: the vectors collapsed (RankMe 1.00, least_rank = 2); raise regularisation_tokens or momentum, or lower "
        "learning_rate"
    ]


def test_vectors_by_raw_id_are_content(tmp_path: Path) -> None:
    frame = table(40)
    model, _ = train_t_jepa(frame, config(epochs=1))
    ids = pl.Series("film", [f"f{place}" for place in range(40)])
    write_vectors(tmp_path / "films.parquet", ids, model.vectors(frame))
    content = ContentConfig.model_validate({"vectors": {"jepa": tmp_path / "films.parquet"}, "id": "film"})
    found = encode_items(content.model_copy(update={"cache": tmp_path / "cache"}))
    place = found.ids.to_list().index("f7")
    assert np.allclose(found.vectors["jepa"].matrix[place], model.vectors(frame[7:8])[0], atol=1e-5)


@pytest.mark.parametrize(
    ("ids", "vectors", "message"),
    [
        ([1, 2, 1], np.zeros((3, 2)), "id 1 stands several times; keep one row per id"),
        ([1, None, 3], np.zeros((3, 2)), "1 of 3 ids are missing; leave these rows out"),
        ([1, 2], np.zeros((3, 2)), r"2 ids and vectors \[3, 2\]: expected one vector per id"),
        ([1, 2, 3], np.array([[0.0], [np.nan], [0]]), "the vectors of 1 ids are not finite, such as that of 2"),
    ],
)
def test_a_file_of_vectors_has_one_sound_vector_per_id(
    tmp_path: Path, ids: list[int], vectors: np.ndarray, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        write_vectors(tmp_path / "out.parquet", pl.Series("item", ids), vectors)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (pl.DataFrame({"a": [1.0]}), "the table has 1 column; one can only be told from another"),
        (pl.DataFrame({"a": [1.0, np.inf], "b": [1, 2]}), "column 'a' holds 1 infinite numbers"),
        (pl.DataFrame({"a": [[1]], "b": [1]}), r"column 'a' has type List.*: expected numbers or text; cast it"),
        (pl.DataFrame({"a": [], "b": []}), "the table has no rows to learn from"),
    ],
)
def test_tables_that_cannot_be_learned_from(frame: pl.DataFrame, message: str) -> None:
    with pytest.raises(DataError, match=message):
        train_t_jepa(frame, config())


def test_a_table_of_other_columns_is_refused() -> None:
    columns = EntityColumns.fit(pl.DataFrame({"year": [1, 2], "genre": ["a", "b"]}))
    with pytest.raises(DataError, match="column 'year' was fitted and is not in the table; did you mean 'years'"):
        columns.encode(pl.DataFrame({"years": [1], "genre": ["a"]}))
    with pytest.raises(DataError, match="column 'year' held numbers when it was fitted, now it is String"):
        columns.encode(pl.DataFrame({"year": ["1"], "genre": ["a"]}))
    with pytest.raises(DataError, match="categorical: column 'gnre' is not in the table; did you mean 'genre'"):
        EntityColumns.fit(pl.DataFrame({"year": [1, 2], "genre": ["a", "b"]}), ["gnre"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"token_dim": 6, "heads": 4}, "token_dim = 6 is no multiple of heads = 4"),
        ({"context_share": (0.6, 0.3)}, r"context_share = \[0.6, 0.3\]: expected the least share first"),
    ],
)
def test_settings_out_of_range(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TJEPAConfig.model_validate(settings)
