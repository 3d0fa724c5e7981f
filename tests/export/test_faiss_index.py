import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recembed.errors import ExportError, MissingPackageError
from recembed.export.manifest import Metric

pytest.importorskip("faiss")


def write_random(folder: Path, count: int = 200) -> np.ndarray:
    vectors = np.random.default_rng(3).normal(size=(count, 6)).astype(np.float32)
    vectors *= np.random.default_rng(4).uniform(0.1, 9, (count, 1)).astype(np.float32)
    pl.DataFrame({"item": np.arange(count), "vector": pl.Series(vectors, dtype=pl.Array(pl.Float32, 6))}).write_parquet(
        folder / "vectors.parquet"
    )
    return vectors


@pytest.mark.parametrize("metric", ["dot", "cosine"])
def test_search_equals_brute_force(metric: Metric, tmp_path: Path) -> None:
    from recembed.export.faiss_index import FaissIndex, write_index

    vectors = write_random(tmp_path)
    write_index(tmp_path, metric)
    queries = vectors[:20] * 3
    before = queries.copy()
    rows, scores = FaissIndex(tmp_path, metric).search(queries, 10)
    exact = queries @ vectors.T
    if metric == "cosine":
        exact /= np.linalg.norm(queries, axis=1, keepdims=True) * np.linalg.norm(vectors, axis=1)
    best = np.argsort(-exact, axis=1)[:, :10]
    assert (rows == best).all()
    np.testing.assert_allclose(scores, np.take_along_axis(exact, best, 1), rtol=1e-5)
    assert (queries == before).all()


def test_more_than_there_are_come_back_as_minus_one(tmp_path: Path) -> None:
    from recembed.export.faiss_index import FaissIndex, write_index

    vectors = write_random(tmp_path, count=2)
    write_index(tmp_path, "dot")
    rows, _ = FaissIndex(tmp_path, "dot").search(vectors[:1], 3)
    assert sorted(rows[0].tolist()) == [-1, 0, 1]


def test_a_bundle_without_index_says_so(tmp_path: Path) -> None:
    from recembed.export.faiss_index import FaissIndex

    with pytest.raises(ExportError, match=r"vectors\.faiss does not exist; export again with faiss=True"):
        FaissIndex(tmp_path, "dot")


def test_without_faiss_the_line_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    monkeypatch.delitem(sys.modules, "recembed.export.faiss_index", raising=False)
    with pytest.raises(MissingPackageError, match=r"pip install 'recembed\[faiss\]'"):
        import recembed.export.faiss_index  # noqa: F401
