"""The chart of a comparison: AUC with its interval against the bytes of the embeddings."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from recembed.errors import MissingPackageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Point", "draw_chart"]

_COLOURS = ("#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951")
_GREY = "#666666"
_CLOSE = 0.025
"""Share of the axis within which two sizes count as equal."""


class Point(Protocol):
    """What one method reached; any object with these attributes."""

    @property
    def method(self) -> str:
        """Its name."""

    @property
    def auc(self) -> float:
        """On the test rows."""

    @property
    def auc_low(self) -> float:
        """Lower end of the 95 % interval."""

    @property
    def auc_high(self) -> float:
        """Upper end."""

    @property
    def embedding_bytes(self) -> int:
        """What the embeddings take."""


def draw_chart(points: Sequence[Point], path: Path, title: str) -> None:
    """Write the chart as PNG.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingPackageError("the chart needs matplotlib: pip install 'recembed[plot]'") from None
    figure = Figure(figsize=(6.4, 4.0), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    right = 1.25 * max(point.embedding_bytes for point in points) / 1024
    taken: list[float] = []
    for point, colour in zip(points, _COLOURS, strict=False):
        size = point.embedding_bytes / 1024
        beside = sum(abs(other - size) < _CLOSE * right for other in taken)  # equal sizes stand side by side
        taken.append(size)
        _draw_point(axes, point, size + beside * _CLOSE * right, colour)
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_xlabel("embedding size (KiB)", color=_GREY)
    axes.set_ylabel("test AUC, 95 % interval", color=_GREY)
    axes.set_xlim(0, right)
    axes.legend(loc="lower right", frameon=False, labelcolor="linecolor")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.tick_params(colors=_GREY, length=0)
    figure.savefig(path, format="png")


def _draw_point(axes: "Axes", point: Point, place: float, colour: str) -> None:
    spread = [[point.auc - point.auc_low], [point.auc_high - point.auc]]
    label = f"{point.method}  {point.auc:.3f}  ({point.embedding_bytes / 1024:.0f} KiB)"
    axes.errorbar(
        place, point.auc, yerr=spread, fmt="o", color=colour, capsize=3, linewidth=1.5, markersize=7, label=label
    )
