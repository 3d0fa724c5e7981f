"""Id dropout: a share of known ids becomes out-of-vocabulary for one step, so that those rows are trained."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from recembed.batch import Batch, Jagged
from recembed.data.encoded import EncodedData, EncodedJagged
from recembed.schema.vocabulary import Vocabulary, lookup_ids

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
        rate = {f.name: fitted.id_dropout(f.name) for f in fitted.schema.features if f.kind != "numeric"}
        rate |= dict.fromkeys(data.key_features, 0.0)
        self._rates = np.array([rate[feature.name] for feature in fitted.schema.categorical])
        names = [feature.name for feature in fitted.schema.categorical]
        self._buckets = {place: _buckets(fitted.vocabulary_of(names[place])) for place in np.flatnonzero(self._rates)}
        self._jagged = {name: rate[name] for name in data.jagged if rate[name] > 0}
        self._jagged_buckets = {name: _buckets(fitted.vocabulary_of(name)) for name in self._jagged}

    def __call__(self, batch: Batch, rows: np.ndarray, low: int, epoch: int, step: int) -> Batch:
        """Drop ids of ``batch``, which holds the rows of the global batch ``rows`` from place ``low`` on."""
        draw = np.random.default_rng([self.seed, epoch, step, 1])
        counts = draw.binomial(len(rows), self._rates)
        place = draw.integers(0, len(rows), counts.sum()) - low
        column = np.repeat(np.arange(len(counts)), counts)
        mine = (place >= 0) & (place < len(batch))
        place, column = place[mine], column[mine]
        for which, buckets in self._buckets.items():
            _drop(batch.ids[:, int(which)], torch.from_numpy(place[column == which]), buckets)
        if not self._jagged:
            return batch
        jagged = dict(batch.jagged)
        for name, share in self._jagged.items():
            places = _jagged_places(self.data.jagged[name], rows, low, share, draw)
            jagged[name] = _drop_jagged(jagged[name], places, self._jagged_buckets[name])
        return replace(batch, jagged=jagged)


def _buckets(vocabulary: Vocabulary | None) -> Tensor:
    """Return the id that stands for each id when it is dropped: itself for reserved ids."""
    assert vocabulary is not None  # noqa: S101  (a rate above 0 implies a vocabulary)
    nothing = torch.empty(0, dtype=torch.int64)
    folded = lookup_ids(torch.from_numpy(vocabulary.keys), nothing, nothing, vocabulary.oov_buckets)
    return torch.cat([torch.arange(vocabulary.first_id), folded])


def _drop(ids: Tensor, places: Tensor, buckets: Tensor) -> None:
    ids[places] = buckets[ids[places]]


def _jagged_places(
    jagged: EncodedJagged, rows: np.ndarray, low: int, share: float, draw: np.random.Generator
) -> np.ndarray:
    """Draw places among all ids of the global batch; count them from the first id of row ``low``."""
    lengths = jagged.offsets.take(rows + 1) - jagged.offsets.take(rows)
    total = int(lengths.sum())
    places = draw.integers(0, max(total, 1), draw.binomial(total, share))
    return places - int(lengths[:low].sum())


def _drop_jagged(jagged: Jagged, places: np.ndarray, buckets: Tensor) -> Jagged:
    mine = places[(places >= 0) & (places < len(jagged.values))]
    _drop(jagged.values, torch.from_numpy(mine), buckets)
    return jagged
