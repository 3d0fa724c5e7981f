import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recembed import serve
from recembed.data import fit
from recembed.embedding import EmbeddingConfig, FeatureEmbedding
from recembed.errors import ConfigError, DataError, ExportError
from recembed.export import export_bundle
from recembed.export.bundle import trained_logits
from recembed.models import LogisticRegression
from recembed.schema.feature import Schema
from recembed.serve import Server

FILMS = ["Alien", "Brazil", "Casablanca", "Duel", "Empire"]
VECTORS = [[1.0, 0.0], [4.0, 0.1], [0.9, 0.9], [0.0, 0.0], [0.0, -2.0]]
ROWS = pl.DataFrame(
    {
        "film": [film for place, film in enumerate(FILMS) for _ in range(5 - place)],
        "user": [place % 4 for place in range(15)],
        "genres": [["a", "b"], [], ["c"]] * 5,
        "age": [18.0, None, 40.0, float("nan"), 60.0] * 3,
        "seen": [0, 1, 1] * 5,
    }
)
SCHEMA = Schema.parse(
    {
        "features": [
            {"name": "film", "role": "item"},
            {"name": "user", "role": "user"},
            {"name": "genres", "kind": "bag"},
            {"name": "age", "kind": "numeric"},
        ],
        "labels": [{"name": "seen"}],
    }
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    fitted = fit(ROWS, SCHEMA)
    embedding = FeatureEmbedding(fitted, EmbeddingConfig(embedding_dim=2), linear=True)
    embedding.store.rows("film")[3:] = embedding.store.rows("film").new_tensor(VECTORS)
    for name in ("film", "user", "genres"):
        rows = embedding.store.rows(f"{name}.linear")
        rows[:, 0] = rows.new_tensor(range(len(rows))) / 10
    model = LogisticRegression(embedding)
    out = tmp_path_factory.mktemp("serve") / "films"
    export_bundle(model, fitted, out, golden=ROWS, run={"run_id": "films"})
    np.save(out.parent / "logits.npy", trained_logits(model.eval(), fitted, ROWS))
    return out


@pytest.fixture
def server(folder: Path) -> Server:
    return serve.load(folder)


def test_scores_are_those_of_the_trained_model(server: Server, folder: Path) -> None:
    expected = 1 / (1 + np.exp(-np.load(folder.parent / "logits.npy").astype(np.float64)))
    scores = server.score(ROWS)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-6)


def test_score_by_hand(server: Server) -> None:
    row = {"film": "Brazil", "user": 0, "genres": ["a", "unseen"], "age": None}
    users = server.fitted.vocabularies["user"].values.to_list()
    genres = server.fitted.vocabularies["genres"].values.to_list()
    bag = ((3 + genres.index("a")) / 10 + 2 / 10) / 2
    logit = 4 / 10 + (3 + users.index(0)) / 10 + bag
    assert server.score([row])[0] == pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-6)


def test_rows_may_come_in_any_form(server: Server) -> None:
    expected = server.score(ROWS)
    forms: list[Any] = [ROWS.to_dict(as_series=False), ROWS.to_dicts(), ROWS.drop("seen")]
    pandas = pytest.importorskip("pandas")
    forms.append(pandas.DataFrame(ROWS.drop("genres").to_dict(as_series=False)).assign(genres=ROWS["genres"].to_list()))
    for rows in forms:
        np.testing.assert_array_equal(server.score(rows), expected)
    for rows in ("film", 7, []):
        with pytest.raises(DataError, match=r"rows = \w+: expected a polars or pandas DataFrame"):
            server.score(rows)


def test_no_rows_give_no_scores(server: Server) -> None:
    assert server.score(ROWS.head(0)).shape == (0,)


def test_a_row_of_nulls_is_a_row_of_missing_values(server: Server) -> None:
    nothing = {"film": [None], "user": [None], "genres": [None], "age": [None]}
    assert server.score(nothing)[0] == pytest.approx(1 / (1 + np.exp(-0.2)), abs=1e-6)
    np.testing.assert_array_equal(server.score({**nothing, "genres": [[]]}), server.score(nothing))


def test_unseen_ids_are_scored_and_counted(server: Server) -> None:
    assert server.unseen == {"film": 0, "user": 0, "genres": 0}
    server.score(ROWS)
    assert sum(server.unseen.values()) == 0
    unseen = {
        "film": ["Fargo", "Alien", "Gilda"],
        "user": [0, 1, 99],
        "genres": [["x", "a", "y"], [], []],
        "age": [1.0] * 3,
    }
    assert np.isfinite(server.score(unseen)).all()
    assert server.unseen == {"film": 2, "user": 1, "genres": 2}


def test_a_missing_column_is_named(server: Server) -> None:
    with pytest.raises(DataError, match="feature 'genres': column 'genres' is not in the data; did you mean 'genre'"):
        server.score(ROWS.rename({"genres": "genre"}))


def test_ids_of_another_type_are_refused(server: Server) -> None:
    with pytest.raises(DataError, match="feature 'user': column 'user' holds string ids here, but held int ids"):
        server.score(ROWS.with_columns(pl.col("user").cast(pl.String)))
    with pytest.raises(DataError, match="infinite"):
        server.score(ROWS.with_columns(age=pl.lit(float("inf"))))


def test_nearest_by_dot_product(server: Server) -> None:
    assert server.nearest("Alien", k=3).rows() == [("Brazil", 4.0), ("Casablanca", pytest.approx(0.9)), ("Duel", 0.0)]
    whole = server.nearest("Alien", k=9, include_self=True)
    assert whole["id"].to_list() == ["Brazil", "Alien", "Casablanca", "Duel", "Empire"]  # equal: the frequent one first


def test_nearest_by_cosine(server: Server) -> None:
    found = server.nearest("Casablanca", k=4, metric="cosine")
    assert found["id"].to_list() == ["Brazil", "Alien", "Duel", "Empire"]
    brazil = (4.0 + 0.1) / (np.sqrt(2) * np.sqrt(16.01))
    assert found["score"].to_list() == pytest.approx([brazil, np.sqrt(0.5), 0.0, -np.sqrt(0.5)], abs=1e-6)
    assert server.nearest("Duel", k=1, metric="cosine")["score"].to_list() == [0.0]  # a vector of length 0


def test_vectors_by_raw_id(server: Server) -> None:
    assert server.ids.to_list() == FILMS
    np.testing.assert_array_equal(server.vectors, np.array(VECTORS, np.float32))
    assert server.vector("Empire").tolist() == [0.0, -2.0]


def test_an_unknown_id_is_refused(server: Server) -> None:
    with pytest.raises(DataError, match=r"id 'Alein' is not among the 5 ids of 'film' \(such as 'Alien', 'Brazil'"):
        server.nearest("Alein")
    with pytest.raises(DataError, match="id 7 is a int, but the ids of 'film' are string"):
        server.vector(7)


def test_settings_out_of_range_are_refused(server: Server) -> None:
    with pytest.raises(ConfigError, match="k = 0: expected at least 1"):
        server.nearest("Alien", k=0)
    with pytest.raises(ConfigError, match="metric = 'l2': expected 'dot' or 'cosine'"):
        server.nearest("Alien", metric="l2")  # type: ignore[arg-type]


def test_a_damaged_bundle_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"manifest\.json does not exist"):
        serve.load(tmp_path)
    for path in folder.rglob("*"):
        target = tmp_path / path.relative_to(folder)
        target.mkdir() if path.is_dir() else target.write_bytes(path.read_bytes())
    serve.load(tmp_path)
    data = bytearray((tmp_path / "vectors.parquet").read_bytes())
    data[20] ^= 4
    (tmp_path / "vectors.parquet").write_bytes(data)
    with pytest.raises(ExportError, match=r"vectors\.parquet was changed after the export"):
        serve.load(tmp_path)
    (tmp_path / "vectors.parquet").unlink()
    with pytest.raises(ExportError, match=r"vectors\.parquet is missing from the bundle"):
        serve.load(tmp_path)


def test_serving_loads_no_heavy_package(folder: Path) -> None:
    code = (
        "import sys; from recembed.serve import load; server = load(sys.argv[1]);"
        "server.score({'film': ['Duel'], 'user': [1], 'genres': [['a']], 'age': [3.0]}); server.nearest('Duel');"
        "print(*{'torchrec', 'fbgemm_gpu', 'mlflow', 'matplotlib', 'sklearn', 'faiss', 'pandas'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr
