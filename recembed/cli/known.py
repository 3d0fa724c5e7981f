"""The named data sets and where each was found, without fetching any."""

from dataclasses import dataclass
from pathlib import Path

from recembed.data.datasets import DATASETS, find_dataset

__all__ = ["KnownDataset", "known_datasets"]


@dataclass(frozen=True)
class KnownDataset:
    """One named data set.

    Attributes:
        name: The name for ``data.dataset``.
        title: What it is.
        labels: Its label columns; none where a set holds positives only.
        folder: Where it was found, if it was.
        downloads: Whether it is fetched on first use.
        where: Where a person gets it.
        terms: On what terms it may be used.
    """

    name: str
    title: str
    labels: tuple[str, ...]
    folder: Path | None
    downloads: bool
    where: str
    terms: str


def known_datasets() -> list[KnownDataset]:
    """Return every named data set, looked for in ``$RECEMBED_DATA`` and in the cache."""
    return [
        KnownDataset(
            name,
            info.title,
            tuple(label.name for label in info.schema_of_frame.labels),
            find_dataset(info),
            info.download is not None,
            info.where,
            info.terms,
        )
        for name, info in DATASETS.items()
    ]
