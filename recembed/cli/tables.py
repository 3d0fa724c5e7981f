"""What people see: rich tables of metrics, comparisons, manifests, data sets and checks."""

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    import polars as pl
    from rich.console import RenderableType

    from recembed.cli.known import KnownDataset
    from recembed.doctor import Check
    from recembed.evaluation import Comparison
    from recembed.export import Manifest
    from recembed.quickstart import QuickstartResult

__all__ = [
    "bytes_text",
    "checks_table",
    "datasets_table",
    "evaluation_tables",
    "manifest_table",
    "quickstart_tables",
    "run_tables",
]

_METRICS = {
    "auc": "AUC",
    "gauc": "AUC within users",
    "logloss": "log loss",
    "ne": "normalised entropy",
    "calibration": "calibration",
    "n": "rows",
}
_MARKS = {"ok": ("ok", "green"), "warn": ("warn", "yellow"), "fail": ("FAIL", "red")}


def bytes_text(count: float) -> str:
    """Return bytes for people.

    >>> bytes_text(900), bytes_text(54_321), bytes_text(3 * 2**30)
    ('900 B', '53.0 KiB', '3.0 GiB')
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            break
        count /= 1024
    return f"{count:,.0f} B" if unit == "B" else f"{count:,.1f} {unit}"


def run_tables(metrics: Mapping[str, Any]) -> list["RenderableType"]:
    """Return the metrics of a finished run, and what it cost."""
    parts = {part: metrics[part] for part in ("valid", "test") if metrics.get(part)}
    cost = _plain_table("", "")
    cost.add_row("embeddings", bytes_text(metrics["embedding_bytes"]))
    cost.add_row("embeddings as served", bytes_text(metrics["served_bytes"]))
    cost.add_row("parameters", f"{metrics['parameters']:,}")
    cost.add_row("samples per second", f"{metrics['samples_per_second']:,.0f}")
    cost.add_row("greatest memory", bytes_text(metrics["peak_rss_bytes"]))
    cost.add_row("seconds", f"{metrics['seconds']:,.1f}")
    cost.show_header = False
    return [_metrics_table(parts | _cold(parts.get("test", {}))), cost]


def evaluation_tables(found: Mapping[str, Any]) -> list["RenderableType"]:
    """Return metrics, slices and, where there is one, the comparison."""
    tables: list[RenderableType] = [
        _metrics_table({"value": found["metrics"], **_cold(found["metrics"])}),
        *_unseen(found["metrics"]),
    ]
    tables += [_frame_table(name, frame) for name, frame in found.get("slices", {}).items()]
    if "comparison" in found:
        tables.append(_comparison_table(found["comparison"]))
    return tables


def _cold(metrics: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the metrics of cold items by the title of their column, those without rows left out."""
    found = metrics.get("cold_items", {})
    return {_cold_title(name): slice_ for name, slice_ in found.items() if slice_["n"] and not name.startswith("from_")}


def _cold_title(name: str) -> str:
    """Name a slice of cold items.

    >>> _cold_title("under_5"), _cold_title("unseen")
    ('items under 5 training rows', 'unseen items')
    """
    return "unseen items" if name == "unseen" else f"items under {name.removeprefix('under_')} training rows"


def _metrics_table(parts: Mapping[str, Mapping[str, Any]]) -> Table:
    table = _plain_table("metric", *parts)
    for key, title in _METRICS.items():
        if any(key in metrics for metrics in parts.values()):
            table.add_row(title, *(_metric(metrics, key) for metrics in parts.values()))
    return table


def _metric(metrics: Mapping[str, Any], key: str) -> str:
    value = metrics.get(key)
    if value is None:
        return "-"
    if key == "n":
        return f"{value:,}"
    interval = f"  [{metrics['auc_low']:.4f}, {metrics['auc_high']:.4f}]" if key == "auc" else ""
    return f"{value:.4f}{interval}"


def _unseen(metrics: Mapping[str, Any]) -> list[str]:
    counts = [f"{name} {count:,}" for name, count in metrics.get("unseen", {}).items() if count]
    return [f"unseen ids: {', '.join(counts)}"] if counts else []


def _comparison_table(comparison: "Comparison") -> Table:
    numbers = ("this run", "the other", "difference", "95 % interval", "p")
    table = _plain_table("metric", *numbers, numbers=numbers)
    for title, row in (("AUC", comparison.auc), ("log loss", comparison.log_loss)):
        interval = f"[{row.low:+.4f}, {row.high:+.4f}]"
        table.add_row(title, f"{row.a:.4f}", f"{row.b:.4f}", f"{row.difference:+.4f}", interval, f"{row.p_value:.3g}")
    table.title = f"paired test on {comparison.rows:,} rows"
    return table


def _frame_table(title: str, frame: "pl.DataFrame") -> Table:
    table = _plain_table(*frame.columns, numbers=[c for c in frame.columns if frame[c].dtype.is_numeric()])
    table.title = title.replace("_", " ")
    for row in frame.iter_rows():
        table.add_row(*map(_cell, row))
    return table


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else f"{value:,}" if type(value) is int else str(value)


def manifest_table(manifest: "Manifest") -> Table:
    """Return the head of a bundle."""
    table = _plain_table("", "")
    table.show_header = False
    table.add_row("vectors", f"{manifest.count:,} of {manifest.feature}, {manifest.dimension} wide, {manifest.dtype}")
    table.add_row("compare by", manifest.metric)
    table.add_row("space", manifest.space_id)
    for name, found in manifest.difference.items():
        limit = manifest.tolerance.get(name)
        table.add_row(f"difference of {name}", f"{found:.1e}" + (f" (at most {limit:.1e} passes)" if limit else ""))
    table.add_row("files", ", ".join(sorted({path.split("/")[0] for path in manifest.files})))
    return table


def datasets_table(known: Sequence["KnownDataset"]) -> Table:
    """Return the named data sets."""
    table = _plain_table("name", "what it is", "labels", "where")
    for entry in known:
        where = str(entry.folder or ("fetched on first use" if entry.downloads else entry.where))
        table.add_row(entry.name, entry.title, ", ".join(entry.labels) or "-", where)
    return table


def checks_table(checks: Sequence["Check"]) -> Table:
    """Return the report of the doctor."""
    table = _plain_table("", "what", "found")
    for check in checks:
        mark, colour = _MARKS[check.status]
        found = Group(check.value, Text(f"mend it: {check.fix}", style=colour)) if check.fix else check.value
        table.add_row(Text(mark, style=colour), check.name, found)
    return table


def quickstart_tables(result: "QuickstartResult") -> list["RenderableType"]:
    """Return the comparison, the neighbours and where all of it lies."""
    numbers = ("AUC", "95 % interval", "log loss", "embeddings", "samples/s")
    table = _plain_table("table", *numbers, numbers=numbers)
    for row in result.methods:
        interval = f"[{row.auc_low:.4f}, {row.auc_high:.4f}]"
        speed = f"{row.samples_per_second:,.0f}"
        table.add_row(
            row.method, f"{row.auc:.4f}", interval, f"{row.logloss:.4f}", bytes_text(row.embedding_bytes), speed
        )
    films = _plain_table(f"nearest to {result.film}", "score", numbers=["score"])
    for film in result.neighbours.iter_rows(named=True):
        films.add_row(film["title"], f"{film['score']:.3f}")
    lines = [f"chart    {result.chart}", f"bundle   {result.bundle}"]
    if result.url:
        lines.append(f"MLflow   {result.url}")
    return [table, films, *lines, f"{result.seconds:.0f} seconds in all"]


def _plain_table(*columns: str, numbers: Collection[str] = ()) -> Table:
    """Return a table without lines; the columns in ``numbers`` are set flush right."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), title_justify="left", header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in numbers else "left")
    return table
