"""The charts of a retrieval run: recall by how much users had done in training, and by layer."""

from pathlib import Path

import polars as pl

from recembed.errors import MissingPackageError

__all__ = ["draw_by_degree", "draw_by_layer"]


def draw_by_degree(groups: pl.DataFrame, path: Path, metric: str) -> None:
    """Write the table of ``recembed.evaluation.by_degree`` as a PNG: means with 95 % intervals.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    labels = [
        f"{low}-{high}\n{users:,} users" for low, high, users in groups.select("least", "most", "users").iter_rows()
    ]
    _draw(groups, labels, path, metric, "training interactions of the user", "o-")


def draw_by_layer(layers: pl.DataFrame, path: Path, metric: str) -> None:
    """Write the table of ``layer_metrics`` as a PNG: means with 95 % intervals.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    labels = ["all layers" if layer == "all" else f"layer {layer}" for layer in layers["layer"]]
    _draw(layers, labels, path, metric, f"vectors that rank, {layers['users'][0]:,} users", "o")


def _draw(table: pl.DataFrame, labels: list[str], path: Path, metric: str, across: str, mark: str) -> None:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingPackageError("the chart needs matplotlib: pip install 'recembed[plot]'") from None
    figure = Figure(figsize=(6.4, 3.6), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    places = list(range(table.height))
    reach = (1.96 * table["standard_error"].fill_null(0.0)).to_list()
    axes.errorbar(places, table["value"].to_list(), yerr=reach, fmt=mark, capsize=3, color="#4269d0")
    axes.set_xticks(places, labels, fontsize=8)
    axes.set_xlabel(across)
    axes.set_ylabel(metric)
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
