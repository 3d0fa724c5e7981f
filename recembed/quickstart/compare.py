"""Train MovieLens-100K three ways, compare, export the smallest, and ask it for neighbours."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import polars as pl

from recembed.config import RunConfig, load_config
from recembed.data.datasets import load_dataset
from recembed.errors import DataError
from recembed.quickstart.chart import draw_chart
from recembed.run import RunResult, export_run, train
from recembed.run.files import write_json
from recembed.serve import load

__all__ = ["METHODS", "MethodResult", "QuickstartResult", "method_config", "run_quickstart"]

METHODS = {
    "full": "full",
    "hashed": "{kind: hashed, ratio: 0.25, probes: 4}",
    "multiplexed": "{kind: multiplexed, ratio: 0.25, probes: 4, exact_below: 50}",
}
"""The methods compared, as values of ``embeddings.table``; all else is equal, the number of probes too.

Measured on the validation rows: a hashed table with one probe loses 0.05 AUC more than with four.
"""

FILM = ("Star Wars", 1977)
NEIGHBOURS = 5


@dataclass(frozen=True)
class MethodResult:
    """What one method reached on the test rows, the last tenth in time."""

    method: str
    auc: float
    auc_low: float
    auc_high: float
    logloss: float
    embedding_bytes: int
    samples_per_second: float
    seconds: float
    run: Path


@dataclass(frozen=True)
class QuickstartResult:
    """All that the quickstart has to show.

    Attributes:
        methods: One result each.
        film: The film whose neighbours were asked for.
        neighbours: Columns ``item_id``, ``title`` and ``score``, nearest first.
        chart: The PNG.
        bundle: The export of the last method.
        url: The line that opens the tracking page.
        seconds: Altogether.
    """

    methods: tuple[MethodResult, ...]
    film: str
    neighbours: pl.DataFrame
    chart: Path
    bundle: Path
    url: str
    seconds: float


def method_config(method: str, *extra: str) -> RunConfig:
    """Return the run of one of ``METHODS``; ``extra`` are overrides as after ``--set``."""
    with resources.as_file(resources.files("recembed.quickstart") / "quickstart.yaml") as path:
        return load_config(path, [f"name=quickstart-{method}", f"embeddings.table={METHODS[method]}", *extra])


def run_quickstart(out: Path, say: Callable[[str], None] = print, extra: Sequence[str] = ()) -> QuickstartResult:
    """Run all stages; what an earlier quickstart left in ``out`` is replaced.

    Args:
        out: Folder for the runs, ``metrics.json``, ``auc_by_bytes.png`` and ``bundle``.
        say: Takes one line at the start of each stage.
        extra: Overrides of all three runs, as after ``--set``.

    Raises:
        RecembedError: the data cannot be had, or ``out`` cannot be written to.
    """
    begin = time.perf_counter()
    say("1/4 data: MovieLens-100K; like = rating of 4 or 5; split by time")
    items = load_dataset("ml100k").tables["items"].collect()
    results, last = [], None
    chosen = list(METHODS)[-1]
    for number, method in enumerate(METHODS, start=1):
        say(f"2/4 train: DeepFM with the table {method!r} ({number} of {len(METHODS)})")
        log_model = f"tracking.log_model={str(method == chosen).lower()}"
        last = train(method_config(method, log_model, *extra), out / method, overwrite=True)
        results.append(_method_result(method, last))
    assert last is not None
    say("3/4 export: vectors, id map and model of the last run, proved equal to it")
    bundle = out / "bundle"
    export_run(last.folder, bundle, feature="item_id", metric="cosine", overwrite=True)
    film, neighbours = _neighbours(bundle, items)
    say("4/4 chart and numbers")
    chart = out / "auc_by_bytes.png"
    draw_chart(results, chart, "MovieLens-100K, split by time: DeepFM, three tables")
    result = QuickstartResult(tuple(results), film, neighbours, chart, bundle, last.url, time.perf_counter() - begin)
    write_json(out / "metrics.json", _document(result))
    return result


def _method_result(method: str, run: RunResult) -> MethodResult:
    test: dict[str, Any] = run.metrics["test"]
    return MethodResult(
        method,
        **{name: test[name] for name in ("auc", "auc_low", "auc_high", "logloss")},
        **{name: run.metrics[name] for name in ("embedding_bytes", "samples_per_second", "seconds")},
        run=run.folder,
    )


def _neighbours(bundle: Path, items: pl.DataFrame) -> tuple[str, pl.DataFrame]:
    """Return the film's name and its nearest films; the id is looked up by title and year."""
    names = items.select("item_id", title=pl.format("{} ({})", "title", "year"))
    film = f"{FILM[0]} ({FILM[1]})"
    found = names.filter(pl.col("title") == film)
    if found.height != 1:
        raise DataError(f"film {film!r} stands {found.height} times in the items of ml100k; expected once")
    near = load(bundle).nearest(found["item_id"].item(), NEIGHBOURS).rename({"id": "item_id"})
    joined = near.join(
        names.with_columns(pl.col("item_id").cast(near["item_id"].dtype)),
        on="item_id",
        how="left",
        maintain_order="left",
    )
    return film, joined.select("item_id", "title", "score")


def _document(result: QuickstartResult) -> dict[str, Any]:
    return {
        "methods": {row.method: asdict(row) for row in result.methods},
        "film": result.film,
        "neighbours": result.neighbours.to_dicts(),
        "seconds": result.seconds,
    }
