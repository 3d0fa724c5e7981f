"""Open a bundle: score raw rows, look up vectors, find the nearest ids.

Axes: ``N`` ids or rows, ``D`` width of a vector.
"""

from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl

from recembed.data.keys import key_type, normal_ids, to_keys
from recembed.errors import ConfigError, DataError, ExportError
from recembed.export.content import NewItems, read_new_items
from recembed.export.manifest import Manifest, Metric
from recembed.export.ranker import SCHEMA_FOLDER, Ranker
from recembed.export.raw_rows import Rows, as_frame
from recembed.export.vectors import VECTORS_FILE, read_vectors
from recembed.schema.fitted import FittedSchema
from recembed.schema.vocabulary import Vocabulary

__all__ = ["Server", "load"]


def load(bundle: Path | str) -> "Server":
    """Open a bundle and check every file of it.

    Raises:
        ExportError: the folder is no bundle, a file is missing or was changed, or the format is not known.
    """
    return Server(Path(bundle))


class Server:
    """A bundle in memory; graph and vectors are read when first asked for.

    Attributes:
        folder: The bundle.
        manifest: What it says about itself.
        fitted: The mapping.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = Manifest.read(folder)
        self.manifest.check_files(folder)
        self.fitted = FittedSchema.load(folder / SCHEMA_FOLDER)
        if self.fitted.version != self.manifest.mapping_version:
            raise ExportError(f"{folder / SCHEMA_FOLDER} holds another mapping than the manifest says; export again")

    @cached_property
    def _ranker(self) -> Ranker:
        return Ranker(self.folder, self.fitted)

    @property
    def unseen(self) -> dict[str, int]:
        """How many ids that are not in the vocabulary were scored so far, by feature whose id map the bundle has."""
        return dict(self._ranker.reader.unseen)

    def score(self, rows: Rows) -> np.ndarray:
        """Return the probability of each raw row, float32 ``[N]``.

        Unseen ids are scored as in training (out-of-vocabulary row, or hash) and counted in ``unseen``.

        Raises:
            DataError: a column is missing, ids have another type than in training, or a number is infinite.
        """
        return self._ranker.probabilities(as_frame(rows))

    @cached_property
    def vectors(self) -> np.ndarray:
        """All vectors, float32 ``[N, D]``, in the order of ``ids``."""
        return read_vectors(self.folder)

    @property
    def ids(self) -> pl.Series:
        """The raw ids that training knows, most frequent first."""
        return self._vocabulary.values.alias(self.manifest.feature)

    @property
    def new_ids(self) -> pl.Series:
        """The raw ids of items that are known by their content alone; none where the feature has no content."""
        return self._new.ids

    @cached_property
    def _new(self) -> NewItems:
        return read_new_items(self.folder, self.ids, self.manifest.dimension)

    @cached_property
    def _new_keys(self) -> np.ndarray:
        return to_keys(self._new.ids)

    @cached_property
    def _provenance(self) -> pl.Series | None:
        """Where the vectors of ``ids`` and ``new_ids`` come from, or None where the feature has no content."""
        if "provenance" not in pl.read_parquet_schema(self.folder / VECTORS_FILE):
            return None
        known = pl.read_parquet(self.folder / VECTORS_FILE, columns=["provenance"])["provenance"]
        return pl.concat([known, self._new.provenance])

    @property
    def _vocabulary(self) -> Vocabulary:
        vocabulary = self.fitted.vocabulary_of(self.manifest.feature)
        assert vocabulary is not None
        return vocabulary

    def vector(self, raw_id: int | str) -> np.ndarray:
        """Return the vector of one raw id, known or new, float32 ``[D]``; see ``nearest`` for the errors."""
        row = self._row(raw_id)
        vector: np.ndarray = self.vectors[row] if row < len(self.ids) else self._new.vectors[row - len(self.ids)]
        return vector

    def nearest(
        self,
        raw_id: int | str,
        k: int = 5,
        *,
        metric: Metric | None = None,
        include_self: bool = False,
        new_items: bool = False,
    ) -> pl.DataFrame:
        """Return the ``k`` ids whose vectors score highest against that of ``raw_id``, by exact search.

        Args:
            raw_id: An id of the exported feature, as in the raw data; an item known by its content alone may ask too.
            k: How many; fewer come back where there are fewer.
            metric: ``dot`` or ``cosine``; that of the manifest if None.
            include_self: Let ``raw_id`` itself compete.
            new_items: Let items known by their content alone compete. Their vectors are of the same space, but inner
                products favour items that were often clicked, as their vectors are longer: think of ``cosine``.

        Returns:
            Columns ``id`` and ``score``, best first, equal scores in the order of ``ids`` and ``new_ids``; where the
            feature has content also ``provenance``: ``trained``, ``content`` or ``out_of_vocabulary``.

        Raises:
            DataError: the id is not in the bundle, or has another type than its ids.
            ConfigError: ``k`` or ``metric`` is out of range.
        """
        metric = metric or self.manifest.metric
        if metric not in ("dot", "cosine"):
            raise ConfigError(f"metric = {metric!r}: expected 'dot' or 'cosine'")
        if k < 1:
            raise ConfigError(f"k = {k}: expected at least 1")
        row, query = self._row(raw_id), self.vector(raw_id)
        scores, ids = self.vectors @ query, self.ids  # [N]
        if new_items:
            scores, ids = np.concatenate([scores, self._new.vectors @ query]), pl.concat([ids, self.new_ids])
        if metric == "cosine":  # one by one: lengths of 0 stand as the least number
            scores = scores / self._lengths[: len(scores)] / self._lengths[row]
        best = np.argsort(-scores, kind="stable") if k + 1 >= len(scores) else _best(scores, k + 1)
        best = (best if include_self else best[best != row])[:k]
        found = pl.DataFrame({"id": ids.gather(best), "score": scores[best]})
        return found if self._provenance is None else found.with_columns(provenance=self._provenance.gather(best))

    @cached_property
    def _lengths(self) -> np.ndarray:
        """Lengths of the vectors of ``ids`` and ``new_ids``."""
        lengths: np.ndarray = np.linalg.norm(np.concatenate([self.vectors, self._new.vectors]), axis=1)
        return lengths.clip(min=np.finfo(np.float32).tiny)

    def _row(self, raw_id: int | str) -> int:
        """Return the place of an id among ``ids``, or after them among ``new_ids``."""
        name = self.manifest.feature
        ids = pl.Series([raw_id])
        kind, expected = key_type(ids.dtype, name), self.fitted.key_types[name]
        if kind != expected:
            raise DataError(f"id {raw_id!r} is a {kind}, but the ids of {name!r} are {expected}; convert it")
        key = np.array(to_keys(normal_ids(ids, name)))
        row = int(self._vocabulary.lookup(key)[0]) - self._vocabulary.first_id
        if row < 0:
            new = np.flatnonzero(self._new_keys == key)
            if len(new):
                return len(self.ids) + int(new[0])
            some = ", ".join(repr(value) for value in self.ids.head(3))
            raise DataError(
                f"id {raw_id!r} is not among the {len(self.ids)} ids of {name!r} (such as {some}); "
                "it was not in the training rows, or too rare for min_count or top_k"
            )
        return row


def _best(scores: np.ndarray, k: int) -> np.ndarray:
    """Return the places of the ``k`` highest scores, best first, equal ones by place."""
    least = np.partition(scores, len(scores) - k)[len(scores) - k]
    places = np.flatnonzero(scores >= least)
    return places[np.argsort(-scores[places], kind="stable")][:k]
