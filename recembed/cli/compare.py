"""``recembed compare``: its arguments, its plan and its table."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from recembed.cli.answer import Answer
from recembed.cli.command import command

if TYPE_CHECKING:
    from rich.console import RenderableType

    from recembed.compare import ComparisonConfig, ComparisonResult, Line

__all__ = ["compare"]


@command
def compare(
    config: Annotated[Path, typer.Argument(help="YAML file of the comparison; configs/compare_*.yaml are some.")],
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Replace one setting, such as seeds=[0] or base.training.epochs=1."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the comparison; by default runs/<name of the config>.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on: finished cells are read, failed ones are tried again.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the comparison that is in --out.")] = False,
    plan: Annotated[bool, typer.Option("--plan", help="List the cells, and train nothing.")] = False,
) -> Answer:
    """Train methods at byte budgets with several seeds, test them against a reference, and draw the frontier.

    Writes comparison.html, .csv, .json and pareto.png. A cell that fails is a line with the reason.
    """
    from recembed.compare import load_comparison, run_comparison

    settings = load_comparison(config, overrides or [])
    folder = out or Path("runs") / config.stem
    if plan:
        return _plan(settings)
    words = [f"recembed compare {config}", *(f"--set '{o}'" for o in overrides or []), f"--out {folder} --resume"]
    try:
        result = run_comparison(
            settings, folder, resume=resume, overwrite=overwrite, say=lambda line: typer.echo(line, err=True)
        )
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"interrupted; what is done is kept, go on with: {' '.join(words)}") from None
    document = {"folder": folder, "lines": result.lines, "tracking": result.url, "seconds": result.seconds}
    return Answer(document, _tables(result))


def _plan(config: "ComparisonConfig") -> Answer:
    from recembed.compare.runner import grid_points

    table = _empty_table("method", "budgets")
    budgets = {label: [budget.text for budget in config.budgets_of(label)] for label in config.methods}
    for label, own in budgets.items():
        table.add_row(label, ", ".join(own))
    cells = sum(map(len, budgets.values()))
    tuned = (cells if config.tune_per == "budget" else len(budgets)) * (len(list(grid_points(config.grid))) - 1)
    trainings = cells * len(config.seeds) + tuned
    return Answer(
        {"budgets": budgets, "seeds": config.seeds, "trainings": trainings},
        [table, f"{cells} lines of {len(config.seeds)} seeds, {tuned} more trainings to tune: {trainings} in all"],
    )


def _tables(result: "ComparisonResult") -> list["RenderableType"]:
    numbers = ("AUC", "±", "difference", "p", "log loss", "trained", "served", "time", "ns/id")
    table = _empty_table("method", "budget", *numbers, numbers=numbers)
    for line in result.lines:
        table.add_row(*_cells(line))
    failed = [f"{line.method}, {line.budget} {line.status}: {line.reason}" for line in result.lines if line.reason]
    chart = result.folder / "pareto.png"
    files = [f"page     {result.folder / 'comparison.html'}", *([f"chart    {chart}"] if chart.is_file() else [])]
    if result.url:
        files.append(f"tracking {result.url}")
    return [table, *failed, *files]


def _empty_table(*columns: str, numbers: Sequence[str] = ()) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in numbers else "left")
    return table


def _cells(line: "Line") -> Sequence[str]:
    from recembed.compare.chart import size_text

    if line.auc is None or line.logloss is None:
        return [line.method, line.budget, line.status]
    effect = line.auc_paired.best if line.auc_paired else None
    return [
        line.method,
        line.budget,
        f"{line.auc:.4f}",
        "" if line.auc_std is None else f"{line.auc_std:.4f}",
        f"{effect.difference:+.4f}" if effect else "reference" if line.reference else "",
        effect.p_text if effect else "",
        f"{line.logloss:.4f}",
        "" if line.trained_bytes is None else size_text(line.trained_bytes),
        "" if line.served_bytes is None else size_text(line.served_bytes),
        "" if line.training_seconds is None else f"{line.training_seconds:,.0f} s",
        "" if line.lookup_ns is None else f"{line.lookup_ns:,.0f}",
    ]
