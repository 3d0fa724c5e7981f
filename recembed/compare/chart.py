"""The chart of a comparison: AUC against served bytes, and the frontier of what beats all that is smaller."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from recembed.compare.table import Line
from recembed.errors import MissingPackageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_pareto", "frontier", "size_text"]

_COLOURS = (
    "#4269d0",
    "#efb118",
    "#ff725c",
    "#2f9e8f",
    "#3ca951",
    "#e377c2",
    "#a463f2",
    "#6fa8dc",
    "#9c6b4e",
    "#7f7f7f",
)
_MARKS = "os^DvPX<>h"
_GREY = "#666666"
_LABELS_APART = 0.12
"""Share of the axis that two labels of the frontier keep between them."""


def frontier(lines: Sequence[Line]) -> list[Line]:
    """Return the lines that no line of as few or fewer bytes equals in AUC, smallest first."""
    best: list[Line] = []
    for line in sorted(_drawn(lines), key=lambda line: (line.served_bytes or 0, -(line.auc or 0.0))):
        if not best or (line.auc or 0.0) > (best[-1].auc or 0.0):
            best.append(line)
    return best


def draw_pareto(lines: Sequence[Line], path: Path, title: str) -> bool:
    """Write the chart as PNG; nothing, and False, where no line has a result yet.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
    except ImportError:
        raise MissingPackageError("the chart needs matplotlib: pip install 'recembed[plot]'") from None
    drawn = _drawn(lines)
    if not drawn:
        return False
    figure = Figure(figsize=(10.0, 5.6), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_xscale("log")
    if len({line.served_bytes for line in drawn}) == 1:  # before anything is drawn: one size alone has no scale
        only = drawn[0].served_bytes or 1
        axes.set_xlim(only / 2, only * 2)
    for number, method in enumerate(dict.fromkeys(line.method for line in drawn)):
        own = sorted((line for line in drawn if line.method == method), key=lambda line: line.served_bytes or 0)
        _draw_method(axes, method, own, _COLOURS[number % 10], _MARKS[(number + number // 10) % 10])
    _draw_frontier(axes, frontier(drawn))
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_xlabel("served bytes of the embeddings", color=_GREY)
    axes.set_ylabel("test AUC (mean over seeds, ± standard deviation)", color=_GREY)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: size_text(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.08, y=0.08)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e4e4e4", linewidth=0.6)
    axes.tick_params(colors=_GREY, length=0)
    beside = path.with_name(path.name + ".tmp")
    figure.savefig(beside, format="png")
    beside.replace(path)
    return True


def _drawn(lines: Sequence[Line]) -> list[Line]:
    return [line for line in lines if line.auc is not None and line.auc == line.auc and line.served_bytes]


def _draw_method(axes: "Axes", method: str, lines: Sequence[Line], colour: str, mark: str) -> None:
    sizes = [line.served_bytes or 0 for line in lines]
    values = [line.auc or 0.0 for line in lines]
    spread = [line.auc_std or 0.0 for line in lines]
    axes.errorbar(
        sizes,
        values,
        yerr=spread,
        fmt=f"{mark}-",
        color=colour,
        linewidth=1.1,
        markersize=6,
        capsize=2.5,
        alpha=0.9,
        label=method,
    )


def _draw_frontier(axes: "Axes", best: Sequence[Line]) -> None:
    sizes, values = [line.served_bytes or 0 for line in best], [line.auc or 0.0 for line in best]
    axes.step(
        sizes, values, where="post", color="#222222", linewidth=1.0, linestyle=(0, (4, 3)), label="frontier", zorder=1
    )
    left, right = axes.get_xlim()
    apart = (right / left) ** _LABELS_APART
    labelled = float("inf")
    for line, size, value in reversed(list(zip(best, sizes, values, strict=True))):
        if size * apart > labelled:
            continue  # its label would lie on that of a better one; the marks tell it
        labelled = size
        axes.annotate(line.method, (size, value), xytext=(-4, 6), textcoords="offset points", fontsize=8, ha="right")


def size_text(size: float) -> str:
    """Return bytes in the decimal unit that keeps the number short.

    >>> size_text(158_000), size_text(1_600_000), size_text(12)
    ('158 kB', '1.6 MB', '12 B')
    """
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.3g} {unit}"
    return f"{size:.0f} B"
