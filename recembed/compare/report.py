"""Writes what a comparison found: CSV, JSON, chart and page, each beside and renamed."""

import datetime
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

from recembed.compare.chart import draw_pareto
from recembed.compare.page import Facts, page, tuning_text
from recembed.compare.settings import ComparisonConfig
from recembed.compare.table import Group, Line, frame_of, lines_of
from recembed.run.files import write_json, write_table, write_text
from recembed.versions import installed_versions

__all__ = ["write_report"]


def write_report(config: ComparisonConfig, groups: Sequence[Group], out: Path) -> list[Line]:
    """Write ``comparison.csv``, ``.json``, ``.html`` and ``pareto.png`` from the cells there are.

    Raises:
        MissingPackageError: matplotlib is not installed. DataError: two cells were tested on other rows.
    """
    lines = lines_of(config, groups)
    facts = Facts(
        date=datetime.datetime.now(tz=datetime.UTC).strftime("%d %B %Y, %H:%M UTC"),
        versions=_versions(),
        test_rows=_test_rows(groups),
        finished=all(len(group.cells) == len(config.seeds) for group in groups),
    )
    write_table(out / "comparison.csv", frame_of(lines))
    write_json(
        out / "comparison.json",
        {
            "name": config.name,
            "tuning": tuning_text(config),
            **asdict(facts),
            "lines": [asdict(line) for line in lines],
        },
    )
    chart = out / "pareto.png"
    drawn = draw_pareto(lines, chart, config.name)
    write_text(out / "comparison.html", page(config, lines, chart if drawn else None, facts))
    return lines


def _test_rows(groups: Sequence[Group]) -> int | None:
    counts = [cell.metrics.get("test_rows") for group in groups for cell in group.done.values()]
    return next((int(count) for count in counts if count is not None), None)


def _versions() -> dict[str, str]:
    return {
        "recembed": metadata.version("recembed"),
        "python": platform.python_version(),
        "torch and kernels": str(installed_versions()),
        "polars": metadata.version("polars"),
        "machine": f"{platform.machine()}, {os.cpu_count()} processors, {platform.system()} {platform.release()}",
    }
