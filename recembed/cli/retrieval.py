"""The answers of retrieval runs: what the commands say of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.table import Table

from recembed.cli.answer import Answer
from recembed.cli.command import INTERRUPTED
from recembed.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = [
    "evaluate_retrieval_run",
    "export_retrieval_run",
    "ranking_tables",
    "refuse_flags",
    "train_retrieval_run",
    "verify_retrieval_bundles",
]


def refuse_flags(flags: Mapping[str, object]) -> None:
    """Refuse flags that mean nothing to a retrieval run; None stands for one that was not given.

    Raises:
        ConfigError: one was given.
    """
    for name, given in flags.items():
        if given is not None:
            raise ConfigError(f"{name} {given}: a run of task 'retrieval' has no use for it; leave it out")


def train_retrieval_run(
    config: Path, overrides: Sequence[str], folder: Path, *, resume: bool, overwrite: bool
) -> Answer:
    """Train a retrieval run and keep it."""
    from recembed.config import read_settings
    from recembed.run import RetrievalConfig, train_retrieval

    words = ["recembed train", str(config), *(f"--set '{o}'" for o in overrides), f"--out {folder} --resume"]
    settings = RetrievalConfig.parse(read_settings(config, overrides))
    result = train_retrieval(
        settings, folder, resume=resume, overwrite=overwrite, say=lambda line: typer.echo(line, err=True)
    )
    document = {"run": folder, **result.metrics, "tracking": result.url}
    if result.stopped == "interrupted":
        return Answer(
            document,
            [],
            INTERRUPTED,
            f"interrupted; epochs that were finished are saved; go on with: {' '.join(words)}",
        )
    lines = [f"run      {folder}", *([f"tracking {result.url}"] if result.url else [])]
    return Answer(document, [*ranking_tables(result.metrics), *lines])


def evaluate_retrieval_run(run: Path, *, data: str | None, against: Path | None) -> Answer:
    """Measure a retrieval run once more on its test interactions."""
    from recembed.run import evaluate_retrieval

    refuse_flags({"--data": data, "--against": against})
    found = evaluate_retrieval(run)
    return Answer(found, ranking_tables({"test": found["metrics"]}))


def export_retrieval_run(
    run: Path, out: Path, *, feature: str | None, metric: str, faiss: bool, overwrite: bool
) -> Answer:
    """Write a bundle of users and one of items."""
    from recembed.cli.tables import manifest_table
    from recembed.run import export_retrieval

    refuse_flags({"--feature": feature})
    manifests = export_retrieval(run, out, metric=metric, faiss=faiss, overwrite=overwrite)
    tables = [manifest_table(manifest) for manifest in manifests.values()]
    return Answer({"bundle": out, "manifests": manifests}, [*tables, *(f"bundle   {out / side}" for side in manifests)])


def verify_retrieval_bundles(folder: Path) -> Answer:
    """Check bundles of users and items once more."""
    from recembed.export.retrieval import verify_pair

    reports = verify_pair(folder)
    lines: list[RenderableType] = [
        f"{side}: {report.files} files whole, {report.vectors:,} vectors, {report.golden_rows:,} golden users recommended "
        f"the same within {report.difference['score']:.1e}"
        for side, report in reports.items()
    ]
    return Answer(reports, lines)


def ranking_tables(metrics: Mapping[str, Any]) -> list["RenderableType"]:
    """Return the ranking metrics of a run with their intervals, one line each, and what it cost."""
    table = Table("metric", box=None, header_style="bold")
    parts = [part for part in ("valid", "test") if metrics.get(part)]
    for part in parts:
        table.add_column(part, justify="right")
    for name in metrics["test"]:
        cells = [f"{metrics[part][name]:.4f}" if name in metrics[part] else "-" for part in parts]
        if name in metrics.get("intervals", {}):
            low, high = metrics["intervals"][name]
            cells[-1] += f"  [{low:.4f}, {high:.4f}]"
        table.add_row(name, *cells)
    shown: list[RenderableType] = [table]
    if "seconds" in metrics:
        shown.append(
            f"{metrics['epochs']} epochs, {metrics['steps']:,} steps, {metrics['training_seconds']:,.0f} s of training steps, "
            f"{metrics['seconds']:,.0f} s in all"
        )
    return shown
