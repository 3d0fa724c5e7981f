"""Methods × budgets × seeds, cell by cell; the first seed also chooses from the grid."""

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from recembed.compare.cell import CellResult, run_cell
from recembed.compare.report import write_report
from recembed.compare.settings import ComparisonConfig
from recembed.compare.table import Group, Line
from recembed.compare.tracked import Parent
from recembed.errors import ConfigError
from recembed.run.files import prepare_folder, write_text

__all__ = ["ComparisonResult", "run_comparison"]

_BETWEEN_REPORTS = 60.0


@dataclass(frozen=True)
class ComparisonResult:
    """A finished comparison.

    Attributes:
        folder: Where it lies: ``comparison.html``, ``.csv``, ``.json``, ``pareto.png`` and ``runs/``.
        lines: One per method and budget.
        url: What opens the tracking page; empty without tracking.
        seconds: Altogether, in this go.
    """

    folder: Path
    lines: list[Line]
    url: str
    seconds: float


def run_comparison(
    config: ComparisonConfig,
    out: Path | str,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> ComparisonResult:
    """Train all cells and write the report; every method meets its first seed before any meets its second.

    A cell that fails is a line with the reason. The report is written again at least every minute, from what is done.

    Args:
        config: What to compare.
        out: Folder of the comparison; cells lie in ``runs/<method>/<budget>/<seed>``.
        resume: Go on: cells that are done are read, cut ones go on, failed ones are tried again.
        overwrite: Replace a comparison that is there.
        progress: Show a progress bar per training; None shows it on a terminal only.
        say: Takes one line per cell.

    Raises:
        ConfigError: ``out`` holds a comparison already, or cells of other settings.
        KeyboardInterrupt: stopped; what is done is kept, and reported.
    """
    begin = time.perf_counter()
    out = Path(out)
    _prepare(out, resume=resume, overwrite=overwrite)
    write_text(out / "comparison.yaml", yaml.safe_dump(config.to_dict(), sort_keys=False))
    parent = Parent.start(config, out)
    runner = _Runner(config, out, parent, progress, say)
    done = False
    try:
        try:
            runner.run()
        finally:
            lines = runner.report()
        parent.report(lines, out)
        done = True
    finally:
        parent.end(ok=done)
    return ComparisonResult(out, lines, parent.url, time.perf_counter() - begin)


def _prepare(out: Path, *, resume: bool, overwrite: bool) -> None:
    prepare_folder(out, may_exist=True)
    if not (resume or overwrite) and (out / "comparison.yaml").exists():
        raise ConfigError(
            f"output {out} holds a comparison already; choose another --out, go on with --resume, or --overwrite"
        )
    if overwrite:
        shutil.rmtree(out / "runs", ignore_errors=True)
        for pattern in ("comparison.*", "pareto.png", "tracking.json"):
            for path in out.glob(pattern):
                path.unlink()


@dataclass
class _Runner:
    config: ComparisonConfig
    out: Path
    parent: Parent
    progress: bool | None
    say: Callable[[str], None]
    groups: list[Group] = field(default_factory=list)
    chosen: dict[tuple[str, str], Mapping[str, Any]] = field(default_factory=dict)
    reported: float = 0.0

    def run(self) -> None:
        config = self.config
        self.groups = [Group(label, budget) for label in config.methods for budget in config.budgets_of(label)]
        cells = [(seed, group) for seed in config.seeds for group in self.groups]
        for number, (seed, group) in enumerate(cells, start=1):
            self.say(f"{number}/{len(cells)} {group.method}, {group.budget.text}, seed {seed}")
            cell = self._cell(group, seed)
            self.say("  " + _outcome(cell))
            if time.perf_counter() - self.reported > _BETWEEN_REPORTS:
                self.report()

    def report(self) -> list[Line]:
        lines = write_report(self.config, self.groups, self.out) if self.groups else []
        self.reported = time.perf_counter()
        return lines

    def _cell(self, group: Group, seed: int) -> CellResult:
        folder = self.out / "runs" / group.method / group.budget.folder / str(seed)
        if not self.config.grid:
            cell = self._run(group, seed, {}, folder)
        elif seed == self.config.seeds[0]:
            cell = self._tuned(group, folder)
        elif (place := self._tuned_for(group)) in self.chosen:
            cell = self._run(group, seed, self.chosen[place], folder)
        else:
            cell = group.cells[self.config.seeds[0]]  # no point of the grid could be trained
        group.cells[seed], group.folders[seed] = cell, folder
        return cell

    def _tuned_for(self, group: Group) -> tuple[str, str]:
        return group.method, group.budget.text if self.config.tune_per == "budget" else ""

    def _tuned(self, group: Group, folder: Path) -> CellResult:
        """Try the grid with the first seed; the best trial is that seed's cell."""
        seed, place = self.config.seeds[0], self._tuned_for(group)
        if place in self.chosen:
            return self._run(group, seed, self.chosen[place], folder)
        trials: list[tuple[CellResult, Path]] = []
        for values in grid_points(self.config.grid):
            words = ",".join(f"{key.split('.')[-1]}={value}" for key, value in values.items())
            trial = folder.parent / "grid" / words.replace("/", "_")
            trials.append((self._run(group, seed, values, trial), trial))
            group.tried = len(trials)
            self.say(f"  {words}: {_outcome(trials[-1][0], 'valid_')}")
        good = [(cell, trial) for cell, trial in trials if cell.status == "done"]
        if not good:
            return trials[0][0]
        cell, trial = max(good, key=lambda pair: self._worth(pair[0]))
        self.chosen[place] = cell.values
        _copy_folder(trial, folder)
        return cell

    def _worth(self, cell: CellResult) -> float:
        value = cell.metrics.get(f"valid_{self.config.metric}")
        if value is None or value != value:
            return float("-inf")
        return value if self.config.metric == "auc" else -value

    def _run(self, group: Group, seed: int, values: Mapping[str, Any], folder: Path) -> CellResult:
        config = self.config
        name = " ".join([group.method, group.budget.text, f"seed {seed}", *(f"{k}={v}" for k, v in values.items())])
        settings = config.settings(
            group.method,
            {**group.budget.overrides, **values, "training.seed": seed, "name": name, **self.parent.overrides},
        )
        return run_cell(
            settings,
            folder,
            self.parent.tracker,
            values=values,
            keep_checkpoint=config.keep_checkpoints,
            progress=self.progress,
        )


def grid_points(grid: Mapping[str, tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
    """Yield every combination of the values.

    >>> list(grid_points({"lr": (1, 2), "l2": (0,)}))
    [{'lr': 1, 'l2': 0}, {'lr': 2, 'l2': 0}]
    """
    for values in product(*grid.values()):
        yield dict(zip(grid, values, strict=True))


def _copy_folder(source: Path, target: Path) -> None:
    """Copy a folder so that ``target`` holds all of it or is as before."""
    beside = target.with_name(target.name + ".tmp")
    shutil.rmtree(beside, ignore_errors=True)
    shutil.copytree(source, beside)
    shutil.rmtree(target, ignore_errors=True)
    beside.replace(target)


def _outcome(cell: CellResult, part: str = "") -> str:
    if cell.status != "done":
        return f"failed: {cell.reason}"
    auc, loss = cell.metrics[f"{part}auc"], cell.metrics[f"{part}logloss"]
    where = "validation " if part else ""
    return f"{where}AUC {auc:.4f}, log loss {loss:.4f}, {cell.metrics['training_seconds']:.0f} s"
