"""One cell of a comparison: a method at a budget with a seed, trained as an ordinary run and kept small."""

import json
import shutil
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from recembed.compare.lookup import lookup_nanoseconds
from recembed.compare.overrides import flat
from recembed.config import RunConfig
from recembed.errors import ConfigError, RecembedError
from recembed.run import RunResult, load_run, train
from recembed.run.files import write_json, write_text
from recembed.run.record import RunRecord
from recembed.training import Tracker

__all__ = ["CellResult", "MakeTracker", "run_cell"]

_FILE = "cell.json"
_FREE = ("name", "tracking")
_HEAVY = ("predictions_valid.parquet", "golden.parquet")

MakeTracker = Callable[[str | None], Tracker]
"""Gives the tracker of one run; the id of an earlier run to go on with, or None."""


@dataclass(frozen=True)
class CellResult:
    """What one cell reached, as ``cell.json`` keeps it.

    Attributes:
        settings: The plain settings it ran under.
        status: ``running`` also where it was cut off.
        reason: Why it failed.
        values: What was taken from the grid.
        metrics: ``auc``, ``logloss``, ``valid_auc``, ``valid_logloss``, bytes, times.
    """

    settings: dict[str, Any]
    status: Literal["running", "done", "failed"] = "running"
    reason: str = ""
    values: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float | None] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write ``cell.json``."""
        write_json(folder / _FILE, asdict(self))

    @classmethod
    def read(cls, folder: Path) -> "CellResult | None":
        """Return what a cell reached in ``folder``, None where none was begun."""
        try:
            return cls(**json.loads((folder / _FILE).read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{folder / _FILE} is damaged ({error}); delete {folder} to run the cell again") from None


def run_cell(
    settings: Mapping[str, Any],
    folder: Path,
    make_tracker: MakeTracker,
    *,
    values: Mapping[str, Any],
    keep_checkpoint: bool = False,
    progress: bool | None = None,
) -> CellResult:
    """Train one cell, or read it where it is done; one that was cut off goes on, one that failed starts anew.

    Returns:
        The result; whatever goes wrong in the run is a reason in it.

    Raises:
        ConfigError: the folder holds a cell of other settings.
        KeyboardInterrupt: the training was asked to stop, and saved.
    """
    begun = CellResult(json.loads(json.dumps(dict(settings), default=str)), values=dict(values))
    earlier = CellResult.read(folder)
    if earlier is not None:
        _check_same(folder, earlier.settings, begun.settings)
        if earlier.status == "done":
            return earlier
    begun.write(folder)
    try:
        run = _train(
            begun.settings, folder, make_tracker, earlier is not None and earlier.status == "running", progress
        )
        metrics = _metrics(run, folder)
    except Exception as error:
        reason = str(error) if isinstance(error, RecembedError) else f"{type(error).__name__}: {error}"
        write_text(folder / "error.txt", traceback.format_exc())
        result = replace(begun, status="failed", reason=" ".join(reason.split()))
    else:
        result = replace(begun, status="done", metrics=metrics)
        _make_small(folder, keep_checkpoint)
    result.write(folder)
    return result


def _check_same(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    old, new = flat(before), flat(now)
    for key in sorted(old.keys() | new.keys()):
        if key.split(".")[0] not in _FREE and old.get(key) != new.get(key):
            raise ConfigError(
                f"cell {folder} was run with {key} = {old.get(key)!r}, and is asked for with {new.get(key)!r}; "
                "delete its folder to run it again, or choose another --out"
            )


def _train(
    settings: dict[str, Any], folder: Path, make_tracker: MakeTracker, resume: bool, progress: bool | None
) -> RunResult:
    config = RunConfig.parse(settings)
    record = RunRecord.read(folder) if resume else None
    if record is not None:
        try:
            return _finished(train(config, folder, resume=True, progress=progress, tracker=make_tracker(record.run_id)))
        except RecembedError:
            pass  # what was left cannot be gone on with
    return _finished(train(config, folder, overwrite=True, progress=progress, tracker=make_tracker(None)))


def _finished(run: RunResult) -> RunResult:
    if run.training.stopped == "interrupted":
        raise KeyboardInterrupt
    return run


def _metrics(run: RunResult, folder: Path) -> dict[str, float | None]:
    found, test, valid = run.metrics, run.metrics["test"], run.metrics["valid"]
    if test is None:
        raise ConfigError("a comparison needs test rows; give the split a test share")
    trained = found["embedding_bytes"]
    return {
        "auc": test["auc"],
        "logloss": test["logloss"],
        "valid_auc": valid["auc"] if valid else None,
        "valid_logloss": valid["logloss"] if valid else None,
        "test_rows": test["n"],
        "trained_bytes": trained,
        "optimizer_bytes": found["optimizer_bytes"],
        "served_bytes": found.get("served_bytes", trained),
        "training_seconds": found["training_seconds"],
        "samples_per_second": found["samples_per_second"],
        "lookup_ns": _lookup(folder),
    }


def _lookup(folder: Path) -> float | None:
    """Return the lookup time, None where the serving form cannot be had; a finished training is worth keeping."""
    try:
        return lookup_nanoseconds(load_run(folder))
    except Exception:
        write_text(folder / "lookup_error.txt", traceback.format_exc())
        return None


def _make_small(folder: Path, keep_checkpoint: bool) -> None:
    for name in _HEAVY:
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / "slices", ignore_errors=True)
    if not keep_checkpoint:
        for place in list(folder.rglob("checkpoint")):  # its own, and one of each stage
            shutil.rmtree(place, ignore_errors=True)
