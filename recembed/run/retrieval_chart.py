"""The chart of a retrieval run: recall by how much users had done in training."""

from pathlib import Path

import polars as pl

from recembed.errors import MissingPackageError

__all__ = ["draw_by_degree"]


def draw_by_degree(groups: pl.DataFrame, path: Path, metric: str) -> None:
    """Write the table of ``recembed.evaluation.by_degree`` as a PNG: means with 95 % intervals.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingPackageError("the chart needs matplotlib: pip install 'recembed[plot]'") from None
    figure = Figure(figsize=(6.4, 3.6), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    places = list(range(groups.height))
    reach = (1.96 * groups["standard_error"].fill_null(0.0)).to_list()
    axes.errorbar(places, groups["value"].to_list(), yerr=reach, fmt="o-", capsize=3, color="#4269d0")
    labels = [
        f"{low}-{high}\n{users:,} users" for low, high, users in groups.select("least", "most", "users").iter_rows()
    ]
    axes.set_xticks(places, labels, fontsize=8)
    axes.set_xlabel("training interactions of the user")
    axes.set_ylabel(metric)
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
