"""The cells of a comparison → one line per method and budget."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import polars as pl

from recembed.compare.cell import CellResult
from recembed.compare.settings import Budget, ComparisonConfig
from recembed.compare.statistics import Effect, Paired, mean_and_std, paired
from recembed.errors import DataError

__all__ = ["Group", "Line", "frame_of", "lines_of"]


@dataclass(eq=False)
class Group:
    """All cells of one method at one budget.

    Attributes:
        method: Its label.
        budget: The budget.
        cells: Results by seed; seeds that have not run are left out.
        folders: The run folder of each.
        tried: Trainings made to choose from the grid.
    """

    method: str
    budget: Budget
    cells: dict[int, CellResult] = field(default_factory=dict)
    folders: dict[int, Path] = field(default_factory=dict)
    tried: int = 0

    @property
    def done(self) -> dict[int, CellResult]:
        """The cells that succeeded."""
        return {seed: cell for seed, cell in self.cells.items() if cell.status == "done"}


@dataclass(frozen=True)
class Line:
    """One method at one budget; differences are to the reference, on the same test rows and seeds.

    Attributes:
        seeds: Cells that succeeded.
        auc, logloss: Means over seeds on the test rows.
        auc_std, logloss_std: Sample standard deviations over seeds; None for one seed.
        auc_paired, logloss_paired: Tests against the reference; None for the reference itself.
        trained_bytes, optimizer_bytes: Of the embeddings in training.
        served_bytes: Of their serving form.
        share: Served bytes by the reference's.
        values: What was chosen from the grid.
        reason: Why cells failed.
    """

    method: str
    budget: str
    status: Literal["done", "partly failed", "failed", "not run"]
    seeds: int
    reference: bool = False
    auc: float | None = None
    auc_std: float | None = None
    auc_paired: Paired | None = None
    logloss: float | None = None
    logloss_std: float | None = None
    logloss_paired: Paired | None = None
    trained_bytes: int | None = None
    optimizer_bytes: int | None = None
    served_bytes: int | None = None
    share: float | None = None
    training_seconds: float | None = None
    samples_per_second: float | None = None
    lookup_ns: float | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    tried: int = 0
    reason: str = ""


def lines_of(config: ComparisonConfig, groups: Sequence[Group]) -> list[Line]:
    """Return one line per group, in the order of the groups.

    Raises:
        DataError: two cells were tested on other rows.
    """
    first = config.budgets_of(config.reference)[0]
    reference = next(g for g in groups if (g.method, g.budget) == (config.reference, first))
    scores, served = _scores(reference), _mean(reference, "served_bytes")
    return [_line(group, reference, scores, served) for group in groups]


def _line(group: Group, reference: Group, scores: Mapping[int, pl.DataFrame], served: float | None) -> Line:
    done, failed = group.done, [cell for cell in group.cells.values() if cell.status == "failed"]
    line = Line(
        group.method,
        group.budget.text,
        "failed" if failed else "not run",
        len(done),
        reference=group is reference,
        tried=group.tried,
        reason="; ".join(dict.fromkeys(cell.reason for cell in failed)),
    )
    if not done:
        return line
    auc, auc_std = mean_and_std([_number(cell, "auc") for cell in done.values()])
    logloss, logloss_std = mean_and_std([_number(cell, "logloss") for cell in done.values()])
    auc_paired, logloss_paired = (None, None) if group is reference else _paired(group, scores)
    own = _mean(group, "served_bytes")
    return replace(
        line,
        status="partly failed" if failed else "done",
        auc=auc,
        auc_std=auc_std,
        auc_paired=auc_paired,
        logloss=logloss,
        logloss_std=logloss_std,
        logloss_paired=logloss_paired,
        trained_bytes=_whole(_mean(group, "trained_bytes")),
        optimizer_bytes=_whole(_mean(group, "optimizer_bytes")),
        served_bytes=_whole(own),
        share=own / served if own is not None and served else None,
        training_seconds=_mean(group, "training_seconds"),
        samples_per_second=_mean(group, "samples_per_second"),
        lookup_ns=_mean(group, "lookup_ns"),
        values=next(iter(done.values())).values,
    )


def _scores(group: Group) -> dict[int, pl.DataFrame]:
    return {seed: pl.read_parquet(group.folders[seed] / "predictions_test.parquet") for seed in group.done}


def _paired(group: Group, reference: Mapping[int, pl.DataFrame]) -> tuple[Paired, Paired] | tuple[None, None]:
    """Return the tests of AUC and log loss over the seeds that both have; None where there are none."""
    own = _scores(group)
    seeds = [seed for seed in own if seed in reference]
    if not seeds:
        return None, None
    for seed in seeds:
        same = [column for column in ("label", "user") if column in own[seed].columns]
        if not own[seed].select(same).equals(reference[seed].select(same)):
            raise DataError(
                f"{group.folders[seed]} was tested on other rows than the reference; the data changed in between: "
                "start anew with another --out"
            )
    rows = reference[seeds[0]]
    users = rows["user"].to_numpy() if "user" in rows.columns else None
    logits = [[frames[seed]["logit"].to_numpy() for seed in seeds] for frames in (reference, own)]
    try:
        return paired(rows["label"].to_numpy(), logits[0], logits[1], users)
    except DataError:  # too few rows of a class, or users, for a test
        return None, None


def _number(cell: CellResult, name: str) -> float:
    value = cell.metrics.get(name)
    return float("nan") if value is None else value


def _mean(group: Group, name: str) -> float | None:
    values = [value for cell in group.done.values() if (value := cell.metrics.get(name)) is not None]
    return fmean(values) if values else None


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)


def frame_of(lines: Sequence[Line]) -> pl.DataFrame:
    """Return the lines as a flat table, one column a number."""
    rows = []
    for line in lines:
        row: dict[str, Any] = {}
        for name, value in asdict(line).items():
            if name.endswith("_paired"):
                continue
            row[name] = "; ".join(f"{key}={given}" for key, given in value.items()) if name == "values" else value
        for metric in ("auc", "logloss"):
            tests: Paired | None = getattr(line, f"{metric}_paired")
            for over in ("seeds", "rows"):
                row |= _columns(f"{metric}_{over}", getattr(tests, over) if tests else None)
        rows.append(row)
    return pl.DataFrame(rows, infer_schema_length=None)


def _columns(prefix: str, effect: Effect | None) -> dict[str, float | None]:
    names = ("difference", "low", "high", "p_value")
    return {f"{prefix}_{name}": getattr(effect, name) if effect else None for name in names}
