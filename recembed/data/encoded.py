"""``EncodedData``: rows as matrices of ids and numbers, in memory or mapped from files.

Axes: ``N`` rows, ``I`` features held as ids, ``K`` features held as keys, ``W`` numeric columns, ``L`` labels,
``M`` ids of a jagged feature.
"""

import json
import mmap
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recembed.batch import Batch, Jagged
from recembed.errors import DataError
from recembed.schema.fitted import FittedSchema
from recembed.schema.vocabulary import FIRST_OOV_ID, Vocabulary

__all__ = ["EncodedData", "EncodedJagged"]


@dataclass(frozen=True)
class EncodedJagged:
    """One bag or sequence feature: row ``n`` owns ``values[offsets[n]:offsets[n + 1]]``.

    Shapes:
        values: int32 ids or int64 keys ``[M]``; offsets: int64 ``[N + 1]``; weights: float32 ``[M]`` or None.
    """

    values: np.ndarray
    offsets: np.ndarray
    weights: np.ndarray | None = None

    def batch(self, rows: np.ndarray) -> Jagged:
        """Return the rows at int64 positions ``rows``."""
        places, offsets = self.places(rows)
        weights = None if self.weights is None else torch.from_numpy(self.weights.take(places))
        values = self.values.take(places).astype(np.int64, copy=False)
        return Jagged(torch.from_numpy(values), torch.from_numpy(offsets), weights)

    def places(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the places in ``values`` of the ids of ``rows``, and the offsets of these rows among them."""
        starts = self.offsets.take(rows)
        lengths = self.offsets.take(rows + 1) - starts
        offsets = np.zeros(len(rows) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        return np.repeat(starts - offsets[:-1], lengths) + np.arange(offsets[-1]), offsets


@dataclass(frozen=True, repr=False)
class EncodedData:
    """The rows of one split, encoded under one mapping.

    Attributes:
        fitted: The mapping.
        key_features: Features held as raw 64-bit keys, for hash methods; all others are vocabulary ids.
        unseen: Occurrences of ids that are not in the vocabulary, by feature; features without one are left out.
        folder: Where the arrays are mapped from, or None.

    Shapes:
        ids: int32 ``[N, I]``; keys: int64 ``[N, K]``; numeric: float32 ``[N, W]``; labels: float32 ``[N, L]``.
    """

    fitted: FittedSchema
    key_features: frozenset[str]
    ids: np.ndarray
    keys: np.ndarray
    numeric: np.ndarray
    labels: np.ndarray
    jagged: dict[str, EncodedJagged]
    unseen: dict[str, int]
    folder: Path | None = None

    def __len__(self) -> int:
        """Return ``N``."""
        return len(self.labels)

    def __repr__(self) -> str:
        where = f" in {self.folder}" if self.folder else ""
        return f"EncodedData({len(self)} rows{where}, mapping {self.fitted.version[:12]})"

    @cached_property
    def _places(self) -> tuple[list[int], list[int]]:
        names = [feature.name for feature in self.fitted.schema.categorical]
        as_keys = [place for place, name in enumerate(names) if name in self.key_features]
        return [place for place in range(len(names)) if place not in as_keys], as_keys

    def batch(self, rows: np.ndarray) -> Batch:
        """Return the rows at int64 positions ``rows`` ``[B]``, in that order."""
        return Batch(
            ids=self._ids(rows),
            jagged={name: jagged.batch(rows) for name, jagged in self.jagged.items()},
            numeric=torch.from_numpy(self.numeric.take(rows, axis=0)),
            labels=torch.from_numpy(self.labels.take(rows, axis=0)),
            rows=torch.from_numpy(rows),
        )

    def _ids(self, rows: np.ndarray) -> Tensor:
        as_ids, as_keys = self._places
        ids = torch.from_numpy(self.ids.take(rows, axis=0))
        if not as_keys:
            return ids.long()
        mixed = torch.empty((len(rows), len(as_ids) + len(as_keys)), dtype=torch.int64)
        mixed[:, as_ids] = ids.long()
        mixed[:, as_keys] = torch.from_numpy(self.keys.take(rows, axis=0))
        return mixed

    def column(self, name: str) -> np.ndarray:
        """Return the ids (int32) or keys (int64) of a categorical feature ``[N]``, of a jagged one ``[M]``."""
        if name in self.jagged:
            return self.jagged[name].values
        names = [feature.name for feature in self.fitted.schema.categorical]
        if name not in names:
            raise DataError(f"feature {name!r} (kind {self.fitted.schema[name].kind!r}) holds no ids")
        as_ids, as_keys = self._places
        place = names.index(name)
        return self.keys[:, as_keys.index(place)] if place in as_keys else self.ids[:, as_ids.index(place)]

    def unseen_rows(self, name: str) -> np.ndarray:
        """Return, bool ``[N]``, which rows hold an id of feature ``name`` that is not in its vocabulary."""
        vocabulary, ids = self._vocabulary_ids(name)
        unseen = (ids >= FIRST_OOV_ID) & (ids < vocabulary.first_id)
        if name not in self.jagged:
            return unseen
        sums = np.concatenate([[0], np.cumsum(unseen)])
        offsets = self.jagged[name].offsets
        return np.asarray(sums[offsets[1:]] > sums[offsets[:-1]])

    def train_counts(self, name: str) -> np.ndarray:
        """Return, int64 ``[N]``, how often each row's id of a categorical feature stood in the training rows.

        An id that is not in the vocabulary counts 0.
        """
        if name in self.jagged:
            raise DataError(f"feature {name!r} holds several ids a row, so a row has no single training count")
        vocabulary, ids = self._vocabulary_ids(name)
        counts = vocabulary.count_of(ids)
        return np.where((ids >= FIRST_OOV_ID) & (ids < vocabulary.first_id), 0, counts)

    def _vocabulary_ids(self, name: str) -> tuple[Vocabulary, np.ndarray]:
        vocabulary = self.fitted.vocabulary_of(name)
        if vocabulary is None:
            raise DataError(f"feature {name!r} has no vocabulary (vocabulary = False), so unseen ids are unknown")
        column = self.column(name)
        return vocabulary, vocabulary.lookup(np.array(column)) if name in self.key_features else column

    def arrays(self) -> dict[str, np.ndarray]:
        """Return all arrays by file name (without ``.npy``)."""
        named = {"ids": self.ids, "keys": self.keys, "numeric": self.numeric, "labels": self.labels}
        for place, jagged in enumerate(self.jagged.values()):
            named |= {f"jagged_{place}_values": jagged.values, f"jagged_{place}_offsets": jagged.offsets}
            if jagged.weights is not None:
                named[f"jagged_{place}_weights"] = jagged.weights
        return named

    def release(self) -> None:
        """Take mapped pages out of this process's memory; they come back from the system's cache when they are read.

        Of rows in memory nothing is released.
        """
        for array in self.arrays().values():
            mapped: Any = array.base
            if isinstance(mapped, mmap.mmap) and hasattr(mapped, "madvise"):
                mapped.madvise(mmap.MADV_DONTNEED)

    @classmethod
    def from_arrays(
        cls,
        fitted: FittedSchema,
        key_features: frozenset[str],
        arrays: dict[str, np.ndarray],
        unseen: dict[str, int],
        folder: Path | None = None,
    ) -> "EncodedData":
        """Build from the arrays that ``arrays`` returns."""
        jagged = {
            feature.name: EncodedJagged(
                arrays[f"jagged_{place}_values"],
                arrays[f"jagged_{place}_offsets"],
                arrays.get(f"jagged_{place}_weights"),
            )
            for place, feature in enumerate(fitted.schema.jagged)
        }
        return cls(
            fitted,
            key_features,
            ids=arrays["ids"],
            keys=arrays["keys"],
            numeric=arrays["numeric"],
            labels=arrays["labels"],
            jagged=jagged,
            unseen=unseen,
            folder=folder,
        )

    @classmethod
    def open(cls, folder: Path | str, fitted: FittedSchema | None = None) -> "EncodedData":
        """Map what ``encode_to`` wrote; ``fitted``, where given, saves reading it and must be the same mapping.

        Raises:
            DataError: the folder, or one of its files, is missing, cut off or damaged.
            CheckpointError: it was encoded under another mapping.
        """
        folder = Path(folder)
        manifest = _manifest(folder)
        if fitted is None:
            fitted = FittedSchema.load(folder / "fitted")
        fitted.check_version(manifest["version"], f"encoded data {folder}")
        arrays = {name: _map(folder / f"{name}.npy", shape) for name, shape in manifest["shapes"].items()}
        return cls.from_arrays(fitted, frozenset(manifest["key_features"]), arrays, manifest["unseen"], folder)


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / "manifest.json"
    try:
        manifest: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; encoded data is a folder written by encode_to") from None
    except ValueError as error:
        raise DataError(f"{path} is damaged ({error}); encode the data again") from error
    return manifest


def _map(path: Path, shape: list[int]) -> np.ndarray:
    try:
        array: np.ndarray = np.load(path, mmap_mode=None if 0 in shape else "r", allow_pickle=False)
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"{path} is missing or cut off ({error}); encode the data again") from error
    if list(array.shape) != shape:
        raise DataError(f"{path} has shape {list(array.shape)}, its manifest says {shape}; encode the data again")
    return array
