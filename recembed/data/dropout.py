"""Id dropout: a share of known ids becomes out-of-vocabulary for one step, so that those rows are trained."""

import numpy as np
import torch

from recembed.batch import Batch
from recembed.data.encoded import EncodedData, EncodedJagged
from recembed.schema.vocabulary import FIRST_OOV_ID, Vocabulary, lookup_ids

__all__ = ["IdDropout"]


class IdDropout:
    """Replaces known ids by their out-of-vocabulary bucket, at each feature's rate.

    The places are drawn for the whole global batch from (seed, epoch, step), so every number of processes drops the
    same ids. Features held as keys are left alone: their tables have no out-of-vocabulary rows.

    Args:
        data: The encoded rows.
        seed: With epoch and step, decides which ids are dropped.
    """

    def __init__(self, data: EncodedData, seed: int) -> None:
        self.seed, self.data = seed, data
        fitted = data.fitted
        rates = {f.name: fitted.id_dropout(f.name) for f in fitted.schema.features if f.kind != "numeric"}
        rates |= dict.fromkeys(data.key_features, 0.0)
        names = [feature.name for feature in fitted.schema.categorical]
        self._rates = np.array([rates[name] for name in names])
        vocabularies = {name: v for name in rates if rates[name] > 0 and (v := fitted.vocabulary_of(name)) is not None}
        self._columns = {place: vocabularies[name] for place, name in enumerate(names) if name in vocabularies}
        self._jagged = {name: (rates[name], vocabularies[name]) for name in data.jagged if name in vocabularies}
        self._first_ids = np.zeros(len(names), np.int64)
        for place, vocabulary in self._columns.items():
            self._first_ids[place] = vocabulary.first_id

    def __call__(self, batch: Batch, rows: np.ndarray, low: int, epoch: int, step: int) -> None:
        """Drop ids of ``batch``, in place; it holds the rows of the global batch ``rows`` from place ``low`` on."""
        draw = np.random.default_rng([self.seed, epoch, step, 1])
        if self._columns:
            counts = draw.binomial(len(rows), self._rates)
            place = draw.integers(0, len(rows), counts.sum()) - low
            mine = (place >= 0) & (place < len(batch))
            self._drop_columns(batch.ids.numpy(), place[mine], np.repeat(np.arange(len(counts)), counts)[mine])
        for name, (rate, vocabulary) in self._jagged.items():
            values = batch.jagged[name].values.numpy()
            places = _jagged_places(self.data.jagged[name], rows, low, rate, draw)
            places = places[(places >= 0) & (places < len(values))]
            places = places[values[places] >= vocabulary.first_id]
            values[places] = _buckets(vocabulary, values[places])

    def _drop_columns(self, ids: np.ndarray, place: np.ndarray, column: np.ndarray) -> None:
        old = ids[place, column]
        known = old >= self._first_ids[column]
        place, column, old = place[known], column[known], old[known]
        new = np.full(len(old), FIRST_OOV_ID)
        for which, vocabulary in self._columns.items():
            if vocabulary.oov_buckets > 1:
                here = column == which
                new[here] = _buckets(vocabulary, old[here])
        ids[place, column] = new


def _buckets(vocabulary: Vocabulary, ids: np.ndarray) -> np.ndarray:
    """Return the out-of-vocabulary bucket of each known id."""
    nothing = torch.empty(0, dtype=torch.int64)
    keys = torch.from_numpy(vocabulary.keys[ids - vocabulary.first_id])
    return lookup_ids(keys, nothing, nothing, vocabulary.oov_buckets).numpy()


def _jagged_places(
    jagged: EncodedJagged, rows: np.ndarray, low: int, rate: float, draw: np.random.Generator
) -> np.ndarray:
    """Draw places among all ids of the global batch; count them from the first id of row ``low``."""
    lengths = jagged.offsets.take(rows + 1) - jagged.offsets.take(rows)
    total = int(lengths.sum())
    places = draw.integers(0, max(total, 1), draw.binomial(total, rate))
    return places - int(lengths[:low].sum())
