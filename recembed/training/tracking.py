"""What a training run reports, and to whom: the tracker contract, one that forgets and one that remembers.

A tracker never stops a training: whatever happens to its store, its methods return.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import polars as pl

__all__ = ["MemoryTracker", "NullTracker", "Tracker", "flatten"]


class Tracker(Protocol):
    """Takes in what one run reports, between ``start`` and ``end``; one tracker serves one run."""

    @property
    def url(self) -> str:
        """The address of the run's page, or the command that opens it; empty where there is none."""
        ...

    @property
    def run_id(self) -> str | None:
        """The store's name for the run; None before ``start`` and where there is no store."""
        ...

    def start(self, run_name: str, params: Mapping[str, Any], tags: Mapping[str, str] | None = None) -> None:
        """Open the run; ``params`` is the effective config, nested as it is."""
        ...

    def dataset(self, name: str, *, digest: str, rows: int, source: str) -> None:
        """Name the training data: a content ``digest`` in hex, its number of rows, and where it came from."""
        ...

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Report numbers at ``step``, the count of optimiser steps so far; cheap enough for every step."""
        ...

    def table(self, name: str, frame: pl.DataFrame) -> None:
        """Report a small table, such as the vocabulary report."""
        ...

    def artifact(self, path: Path) -> None:
        """Keep a copy of a file or of a folder."""
        ...

    def model(self, bundle: Path, example: pl.DataFrame | None = None) -> None:
        """Keep the exported ``bundle`` as a model that scores raw rows like those of ``example``."""
        ...

    def child(self, resume: str | None = None) -> "Tracker":
        """Return a tracker, to be started and ended, of a run nested under this one; ``resume`` is its earlier id."""
        ...

    def end(self, ok: bool) -> None:
        """Close the run; ``ok`` is False where training failed. A second call does nothing."""
        ...


class NullTracker:
    """Keeps nothing: for runs without tracking and for all processes but the first."""

    url = ""
    run_id: str | None = None

    def start(self, run_name: str, params: Mapping[str, Any], tags: Mapping[str, str] | None = None) -> None:
        """Do nothing."""

    def dataset(self, name: str, *, digest: str, rows: int, source: str) -> None:
        """Do nothing."""

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Do nothing."""

    def table(self, name: str, frame: pl.DataFrame) -> None:
        """Do nothing."""

    def artifact(self, path: Path) -> None:
        """Do nothing."""

    def model(self, bundle: Path, example: pl.DataFrame | None = None) -> None:
        """Do nothing."""

    def child(self, resume: str | None = None) -> "NullTracker":
        """Return another one."""
        return NullTracker()

    def end(self, ok: bool) -> None:
        """Do nothing."""


@dataclass
class MemoryTracker:
    """Keeps everything in lists, for tests and notebooks.

    Attributes:
        metrics: ``(step, name, value)`` in the order of logging.
        ok: What ``end`` was told; None while the run is open.

    >>> tracker = MemoryTracker()
    >>> tracker.start("first", {"model": {"kind": "fm"}})
    >>> tracker.log({"loss": 0.5}, step=1)
    >>> tracker.params, tracker.metrics, tracker.values("loss")
    ({'model.kind': 'fm'}, [(1, 'loss', 0.5)], [0.5])
    """

    run_name: str = ""
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    datasets: list[dict[str, Any]] = field(default_factory=list)
    metrics: list[tuple[int, str, float]] = field(default_factory=list)
    tables: dict[str, pl.DataFrame] = field(default_factory=dict)
    artifacts: list[Path] = field(default_factory=list)
    models: list[tuple[Path, pl.DataFrame | None]] = field(default_factory=list)
    children: list["MemoryTracker"] = field(default_factory=list)
    ok: bool | None = None

    @property
    def url(self) -> str:
        """Empty: there is no page."""
        return ""

    @property
    def run_id(self) -> str | None:
        """None: there is no store."""
        return None

    def start(self, run_name: str, params: Mapping[str, Any], tags: Mapping[str, str] | None = None) -> None:
        """Keep the name, the flattened parameters and the tags."""
        self.run_name, self.params, self.tags = run_name, flatten(params), dict(tags or {})

    def dataset(self, name: str, *, digest: str, rows: int, source: str) -> None:
        """Keep one record of the data."""
        self.datasets.append({"name": name, "digest": digest, "rows": rows, "source": source})

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Keep each number with its step."""
        self.metrics.extend((step, name, float(value)) for name, value in metrics.items())

    def table(self, name: str, frame: pl.DataFrame) -> None:
        """Keep the table; a later one of the same name takes its place."""
        self.tables[name] = frame

    def artifact(self, path: Path) -> None:
        """Keep the path."""
        self.artifacts.append(path)

    def model(self, bundle: Path, example: pl.DataFrame | None = None) -> None:
        """Keep the path and the example rows."""
        self.models.append((bundle, example))

    def child(self, resume: str | None = None) -> "MemoryTracker":
        """Keep one more tracker and return it."""
        self.children.append(MemoryTracker())
        return self.children[-1]

    def end(self, ok: bool) -> None:
        """Keep how the run ended; the first call counts."""
        self.ok = ok if self.ok is None else self.ok

    def values(self, name: str) -> list[float]:
        """Return all values of one metric, in the order of logging."""
        return [value for _, logged, value in self.metrics if logged == name]


def flatten(params: Mapping[str, Any], longest: int = 6000) -> dict[str, str]:
    """Turn a nested config into one level of text: keys joined by dots, lists as JSON, long values cut.

    Args:
        params: Nested dictionaries of plain values.
        longest: Characters to which a value is cut; a cut value ends in ``…``.

    >>> flatten({"model": {"hidden": [64, 32], "dropout": None}, "seed": 1})
    {'model.hidden': '[64, 32]', 'model.dropout': 'None', 'seed': '1'}
    >>> flatten({"name": "abcdef"}, longest=4)
    {'name': 'abc…'}
    """
    return {key: text if len(text) <= longest else text[: longest - 1] + "…" for key, text in _leaves(params, "")}


def _leaves(params: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for key, value in params.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        elif isinstance(value, Mapping | list | tuple):
            yield f"{prefix}{key}", json.dumps(value, default=str)
        else:
            yield f"{prefix}{key}", str(value)
