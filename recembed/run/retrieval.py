"""The retrieval job: find how long to train, train on everything, read the test set once, keep it all in a folder."""

import resource
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import polars as pl
import torch

from recembed.config import RunConfig
from recembed.errors import MissingPackageError
from recembed.evaluation import RankingResult, UserItems, by_degree
from recembed.graph.encoder import GraphEncoder
from recembed.retrieval import RetrievalResult, RetrievalTrainer, hold_out
from recembed.rows.freed_memory import keep_freed_memory
from recembed.run.files import flat_numbers, prepare_folder, write_json, write_table, write_text
from recembed.run.record import RunRecord, check_resumed, clear_outputs
from recembed.run.reports import make_tracker
from recembed.run.retrieval_chart import draw_by_degree, draw_by_layer
from recembed.run.retrieval_config import RetrievalConfig
from recembed.run.retrieval_data import RetrievalData, graph_of, open_interactions
from recembed.run.retrieval_layers import layer_metrics, reconstruction
from recembed.run.retrieval_new_items import new_item_metrics
from recembed.run.retrieval_vectors import write_golden, write_run_vectors
from recembed.training import Tracker

__all__ = ["RetrievalRunResult", "train_retrieval"]

Say = Callable[[str], None]


@dataclass(frozen=True)
class RetrievalRunResult:
    """A finished or interrupted retrieval run.

    Attributes:
        folder: Where it lies.
        metrics: The content of ``metrics.json``; empty after an interruption.
        stopped: Why the last training ended.
        url: What opens the tracking page; empty without tracking.
    """

    folder: Path
    metrics: dict[str, Any]
    stopped: str
    url: str


@dataclass(frozen=True)
class _Trained:
    """The trainings of a run: the search for the number of epochs, and the last one."""

    trainer: RetrievalTrainer
    encoder: GraphEncoder
    last: RetrievalResult
    search: RetrievalResult | None
    also_seen: UserItems | None


def train_retrieval(
    config: RetrievalConfig,
    out: Path | str,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool | None = None,
    tracker: Tracker | None = None,
    say: Say | None = None,
) -> RetrievalRunResult:
    """Train, test, and write everything to ``out``.

    ``out`` will hold ``config.yaml`` (effective), ``metrics.json``, ``curve.parquet`` (the validation metrics against
    epochs and seconds), ``users_test.parquet`` (metrics by user), ``degrees_test.parquet`` and ``.png`` (recall by training
    interactions), ``layers_test.parquet`` and ``.png`` (recall by each layer alone, for encoders with layers), ``vectors/``
    (users and items by raw id) and the checkpoints ``search/`` and ``refit/``.

    Args:
        config: The whole run.
        out: The run folder.
        resume: Go on from the last checkpoint in ``out``, bit for bit.
        overwrite: Replace a run that is there.
        progress: Show a progress bar; None shows it on a terminal only.
        tracker: Who is told; None takes the one that ``config.tracking`` names.
        say: Hears a line when a training begins or ends.

    Raises:
        ConfigError, DataError, CheckpointError, TrainingError: see their messages; nothing that was there is lost.
    """
    started, out = time.perf_counter(), Path(out)
    prepare_folder(out, may_exist=resume or overwrite)
    begun = RunRecord.read(out) if resume else None
    data = open_interactions(config)
    digest = data.digest()
    if begun is None:
        _clear(out)
    else:
        check_resumed(out, begun, cast(RunConfig, data.config), digest)
    tracker = tracker or make_tracker(config.tracking, resume=begun.run_id if begun else None)
    tracker.start(config.name, data.config.to_dict(), {"recembed.run_folder": str(out.resolve())})
    done = False
    try:
        RunRecord(digest, tracker.run_id).write(out)
        write_text(out / "config.yaml", data.config.to_yaml())
        tracker.dataset(data.name, digest=digest, rows=len(data.train), source=data.origin)
        say = say or (lambda line: None)
        with _threads(config.training.threads):
            trained = _train(data, out, tracker, say, progress=progress, resume=begun is not None)
            if trained.last.stopped == "interrupted":
                return RetrievalRunResult(out, {}, "interrupted", tracker.url)
            result = trained.trainer.measure(data.test, config.evaluation.k, also_seen=trained.also_seen)
            _write(out, data, trained, result)
            given_back = reconstruction(
                graph_of(data, trained.trainer.train), trained.encoder, config.training.seed, say
            )
        metrics = _metrics(data, trained, result) | {"reconstruction": given_back}
        metrics |= {"seconds": time.perf_counter() - started, "run_id": tracker.run_id or uuid.uuid4().hex}
        write_json(out / "metrics.json", metrics)  # the last file: a run that has it is whole
        tracker.log(
            {name.replace("@", "_at_"): value for name, value in flat_numbers(metrics).items()}, trained.last.steps
        )
        tracker.artifact(out / "metrics.json")
        done = True
        return RetrievalRunResult(out, metrics, trained.last.stopped, tracker.url)
    finally:
        tracker.end(ok=done)


def _train(
    data: RetrievalData, out: Path, tracker: Tracker, say: Say, *, progress: bool | None, resume: bool
) -> _Trained:
    """Search for the number of epochs where there is something to search on, then train to the end."""
    config = data.config.training
    if data.judged is not None:
        kept, aside = data.train, data.judged
    elif config.holdout:
        kept, aside = hold_out(data.train, config.holdout, seed=config.seed)
    else:
        trained = _training(data, data.known, tracker, progress, say)
        say(f"training on {len(data.known):,} interactions for {config.epochs} epochs")
        return _Trained(*trained, trained[0].fit(folder=out / "refit", resume=resume), None, None)
    trainer, encoder = _training(data, kept, tracker, progress, say)
    say(
        f"training on {len(kept):,} interactions, {len(aside):,} to validate on, {trainer.steps_per_epoch:,} steps an epoch"
    )
    search = trainer.fit(aside, k=data.config.evaluation.k, folder=out / "search", resume=resume)
    if search.curve.height:
        write_table(out / "curve.parquet", search.curve)
    if search.stopped == "interrupted" or not config.refit:
        return _Trained(trainer, encoder, search, search, data.valid or aside)
    del trainer, encoder  # before the next ones are built
    say(f"best after {search.best_epoch} epochs; training on all {len(data.known):,} interactions for as many")
    trainer, encoder = _training(data, data.known, tracker, progress, say)
    last = trainer.fit(epochs=search.best_epoch, folder=out / "refit", resume=resume)
    return _Trained(trainer, encoder, last, search, None)


def _training(
    data: RetrievalData, interactions: UserItems, tracker: Tracker, progress: bool | None, say: Say
) -> tuple[RetrievalTrainer, GraphEncoder]:
    config = data.config
    encoder = config.model.build(graph_of(data, interactions), config.training.seed, data.content)
    trainer = RetrievalTrainer(encoder, interactions, config.training, tracker=tracker, progress=progress, say=say)
    keep_freed_memory()
    return trainer, encoder


def _metrics(data: RetrievalData, trained: _Trained, result: RankingResult) -> dict[str, Any]:
    """Return what ``metrics.json`` says."""
    search, state, resamples = trained.search, trained.trainer.state, data.config.evaluation.resamples
    names = [name for name in result.metrics if not name.startswith("coverage")]
    intervals = (
        {name: result.interval(name, resamples=resamples) for name in names}
        if resamples and len(result.per_user) > 1
        else {}
    )
    best = search.curve.filter(pl.col("epoch") == search.best_epoch).to_dicts() if search else []
    encoder = trained.encoder
    return {
        "valid": {name: value for name, value in best[0].items() if "@" in name} if best else None,
        "test": result.metrics,
        "intervals": {name: [interval.low, interval.high] for name, interval in intervals.items()},
        "test_users": result.per_user.height,
        "unknown_test_users": data.unknown_users,
        "unknown_test_items": data.unknown_items,
        "new_items": new_item_metrics(trained.trainer, data, trained.also_seen),
        "items_without_content": data.items_without,
        "left_out_interactions": trained.last.left_out,
        "users": data.graph.num_users,
        "items": data.graph.num_items,
        "interactions": len(trained.trainer.train),
        "parameters": sum({id(p): p.numel() for p in encoder.parameters()}.values()),
        "embedding_bytes": 4 * trained.trainer.vectors()[0].shape[1] * data.graph.num_nodes,
        "epochs": trained.last.epochs,
        "best_epoch": trained.last.best_epoch,
        "steps": trained.last.steps,
        "stopped": search.stopped if search else trained.last.stopped,
        "search_seconds": search.seconds if search else 0.0,
        "training_seconds": state.seconds,
        "training_cpu_seconds": state.cpu_seconds,
        "samples_per_second": len(trained.trainer.users) * trained.last.epochs / max(state.seconds, 1e-9),
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def _write(out: Path, data: RetrievalData, trained: _Trained, result: RankingResult) -> None:
    """Write the vectors, and what came out for each user, by raw ids."""
    users, items = trained.trainer.vectors()
    train = trained.trainer.train
    write_run_vectors(out, data, train, users, items)
    seen = train if trained.also_seen is None else train.joined(trained.also_seen)
    write_golden(out, data, seen, users, items)
    by_user = result.per_user.with_columns(data.graph.user_ids[result.per_user["user"].to_numpy()].alias("user"))
    metric = f"recall@{max(data.config.evaluation.k)}"
    groups = by_degree(result, train.counts, metric)
    write_table(out / "degrees_test.parquet", groups)
    with suppress(MissingPackageError):
        draw_by_degree(groups, out / "degrees_test.png", metric)
    layers = layer_metrics(trained.trainer, trained.encoder, data.test, seen, metric)
    if layers is not None:
        write_table(out / "layers_test.parquet", layers)
        with suppress(MissingPackageError):
            draw_by_layer(layers, out / "layers_test.png", metric)
    write_table(out / "users_test.parquet", by_user.rename({"user": data.user}))


def _clear(out: Path) -> None:
    clear_outputs(out)
    for name in ("search", "refit", "vectors"):
        shutil.rmtree(out / name, ignore_errors=True)


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Block with another number of threads; None leaves it."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
