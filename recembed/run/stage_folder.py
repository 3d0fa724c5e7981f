"""The folder of one stage: its checkpoint and, once it is finished, ``stage.json``."""

import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from recembed.config import RunConfig
from recembed.errors import ConfigError
from recembed.run.files import write_json
from recembed.run.parts import run_checkpointer
from recembed.schema.fitted import FittedSchema
from recembed.training import Checkpointer, TrainResult
from recembed.training.stages import Stage

__all__ = ["StageFolder", "StageRecord"]


@dataclass(frozen=True, kw_only=True)
class StageRecord:
    """What a finished stage did.

    Attributes:
        name, do: As in the config.
        number, of: Which stage of how many.
        seconds: How long it took.
        found: What it found by table: kept rows, widths, sparsity.
        metrics: Of the validation rows, with the weights and decisions it ended with.
        settings: What it ran under; a last stage under other settings goes on when the run is resumed.
        training: How the training went; None where nothing was trained.
    """

    name: str
    do: str
    number: int = 0
    of: int = 0
    seconds: float = 0.0
    found: dict[str, dict[str, float]] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    training: TrainResult | None = None

    @property
    def told(self) -> dict[str, Any]:
        """The record as ``metrics.json`` holds it, without the course of the training."""
        kept = ("number", "name", "do", "seconds", "found", "metrics")
        return {name: value for name, value in asdict(self).items() if name in kept}

    def lines(self) -> list[str]:
        """Return what people are told: the stage in one line, then a line for each table.

        >>> found = {"item": {"kept_rows": 1203.0, "sparsity": 0.61803}}
        >>> StageRecord(number=2, of=3, name="prune", do="settle", seconds=4, found=found).lines()
        ['stage 2 of 3, prune: done in 4.0 s', '  item: kept_rows 1,203, sparsity 0.618']
        """
        metrics = [f"{name} {self.metrics[name]:.4f}" for name in ("auc", "logloss") if self.metrics.get(name)]
        words = ", ".join([*metrics, f"done in {self.seconds:,.1f} s"])
        tables = [f"  {table}: {_numbers(found)}" for table, found in self.found.items() if found]
        if self.do == "settle" and not tables:
            tables = ["  nothing to settle: every table is exact"]
        return [f"stage {self.number} of {self.of}, {self.name}: {words}", *tables]


def _numbers(found: dict[str, float]) -> str:
    return ", ".join(f"{k} {v:,.0f}" if float(v).is_integer() else f"{k} {v:.3g}" for k, v in found.items())


@dataclass(frozen=True)
class StageFolder:
    """Where a stage keeps what it makes.

    ``stage.json`` is written last and whole: a stage without it is not finished.

    Attributes:
        path: The folder.
    """

    path: Path

    @classmethod
    def of(cls, out: Path, stage: Stage, number: int) -> "StageFolder":
        """Return the folder of stage ``number`` of the run in ``out``.

        >>> StageFolder.of(Path("runs/a"), Stage(do="settle", name="Prune & pack"), 2).path.as_posix()
        'runs/a/stages/2-prune-pack'
        """
        return cls(out / "stages" / f"{number}-{re.sub(r'[^a-z0-9_]+', '-', stage.name.lower()).strip('-')}")

    @property
    def checkpoints(self) -> Path:
        """Where its checkpoints are."""
        return self.path / "checkpoint"

    def checkpointer(self, fitted: FittedSchema, config: RunConfig) -> Checkpointer:
        """Return the keeper of its checkpoints."""
        return run_checkpointer(self.checkpoints, fitted, config)

    def finish(self, record: StageRecord) -> None:
        """Count the stage as finished."""
        write_json(self.path / "stage.json", asdict(record))

    def reopen(self) -> None:
        """Count the stage as not finished."""
        (self.path / "stage.json").unlink(missing_ok=True)

    def record(self) -> StageRecord | None:
        """Return the record of the stage, or None where it is not finished.

        Raises:
            ConfigError: the record is damaged.
        """
        raw = self._read("stage.json")
        try:
            training = TrainResult(**raw["training"]) if raw and raw["training"] else None
            return StageRecord(**{**raw, "training": training}) if raw else None
        except (KeyError, TypeError) as error:
            raise ConfigError(f"{self.path}/stage.json is damaged ({error}); delete it to do the stage again") from None

    def run_id(self) -> str | None:
        """Return the id of the stage's run in tracking, as far as there is one."""
        raw = self._read("tracking.json")
        return raw.get("run_id") if raw else None

    def keep_run_id(self, run_id: str | None) -> None:
        """Remember the stage's run in tracking."""
        write_json(self.path / "tracking.json", {"run_id": run_id})

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            return dict(json.loads((self.path / name).read_text()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{self.path / name} is damaged ({error}); start the run anew with --overwrite") from None
