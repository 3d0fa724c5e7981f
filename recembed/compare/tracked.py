"""A comparison in tracking: one parent run, every cell its child."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recembed.compare.settings import ComparisonConfig
from recembed.compare.table import Line, frame_of
from recembed.config import RunConfig
from recembed.run.files import write_json
from recembed.run.reports import make_tracker
from recembed.training import Tracker

__all__ = ["Parent"]

_FILE = "tracking.json"


@dataclass(frozen=True)
class Parent:
    """The parent run.

    Attributes:
        own: The parent's tracker.
        overrides: Settings of every cell: no model is logged unless the base asks for it.
    """

    own: Tracker
    overrides: dict[str, Any]

    @classmethod
    def start(cls, config: ComparisonConfig, out: Path) -> "Parent":
        """Open the parent, or go on with the one that an earlier go in ``out`` opened."""
        tracking = RunConfig.parse(config.base).tracking
        log_model = dict(config.base.get("tracking") or {}).get("log_model", False)
        parent = cls(make_tracker(tracking, resume=_earlier(out)), {"tracking.log_model": log_model})
        parent.own.start(config.name, config.to_dict(), {"recembed.comparison_folder": str(out.resolve())})
        write_json(out / _FILE, {"run_id": parent.own.run_id})
        return parent

    @property
    def url(self) -> str:
        """What opens the tracking page."""
        return self.own.url

    def tracker(self, resume: str | None) -> Tracker:
        """Return the tracker of a cell; ``resume`` is the run to go on with."""
        return self.own.child(resume=resume)

    def report(self, lines: Sequence[Line], out: Path) -> None:
        """Tell the parent what came out."""
        names = ("auc", "logloss", "served_bytes", "lookup_ns")
        found = {(f"{line.method}.{line.budget}.{name}"): getattr(line, name) for line in lines for name in names}
        self.own.log({name: float(value) for name, value in found.items() if value is not None}, 0)
        self.own.table("comparison", frame_of(lines))
        for name in ("comparison.html", "comparison.csv", "comparison.yaml", "pareto.png"):
            if (out / name).is_file():
                self.own.artifact(out / name)

    def end(self, ok: bool) -> None:
        """Close the parent."""
        self.own.end(ok)


def _earlier(out: Path) -> str | None:
    try:
        found = json.loads((out / _FILE).read_text(encoding="utf-8"))["run_id"]
    except (OSError, ValueError, KeyError):
        return None
    return str(found) if found else None
