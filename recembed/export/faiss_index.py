"""An exact FAISS index over the vectors of a bundle; the only file that imports ``faiss``."""

from pathlib import Path

import numpy as np
import polars as pl

from recembed.errors import ExportError, MissingPackageError
from recembed.export.content import CONTENT_FILE
from recembed.export.manifest import Metric
from recembed.export.vectors import read_vectors

try:
    import faiss
except ImportError as error:
    raise MissingPackageError("a FAISS index needs faiss: pip install 'recembed[faiss]'") from error

__all__ = ["FAISS_FILE", "FaissIndex", "write_index"]

FAISS_FILE = "vectors.faiss"


def write_index(folder: Path, metric: Metric, *, new_items: bool = False) -> None:
    """Write ``vectors.faiss``: inner products of the vectors as they are (``dot``) or of unit length (``cosine``).

    Label ``i`` of the index is row ``i`` of ``vectors.parquet`` and of ``id_map.parquet``. With ``new_items`` the labels
    from ``count`` on, the number of these rows, are the rows of ``content_vectors.parquet``: items without clicks.

    Raises:
        ExportError: ``new_items`` is asked for and the bundle has none.
    """
    vectors = read_vectors(folder)
    if new_items:
        if not (folder / CONTENT_FILE).is_file():
            raise ExportError("the exported feature has no content, so there are no new items to index; leave them out")
        new = pl.read_parquet(folder / CONTENT_FILE, columns=["vector"])["vector"].rechunk().to_numpy()
        vectors = np.ascontiguousarray(np.concatenate([vectors, new.reshape(-1, vectors.shape[1])]), np.float32)
    if metric == "cosine":
        faiss.normalize_L2(vectors)
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    faiss.write_index(index, str(folder / FAISS_FILE))


class FaissIndex:
    """The index of a bundle.

    Args:
        folder: The bundle.
        metric: The metric that its manifest states.

    Raises:
        ExportError: the bundle has no index.
    """

    def __init__(self, folder: Path | str, metric: Metric) -> None:
        path = Path(folder) / FAISS_FILE
        if not path.is_file():
            raise ExportError(f"{path} does not exist; export again with faiss=True")
        self._index = faiss.read_index(str(path))
        self._metric = metric

    def __len__(self) -> int:
        """Return how many vectors the index holds."""
        return int(self._index.ntotal)

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows of the best ``k`` vectors for each query, and their scores, best first.

        Shapes:
            queries: float32 ``[Q, D]``. Returns int64 ``[Q, k]`` and float32 ``[Q, k]``; row -1 where ``k`` is more
            than there are vectors.
        """
        queries = np.array(queries, np.float32, order="C")
        if self._metric == "cosine":
            faiss.normalize_L2(queries)
        scores, rows = self._index.search(queries, k)
        return rows, scores
