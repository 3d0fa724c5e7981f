"""What a run came to: its evaluation, its numbers, the files that hold them."""

import math
import resource
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recembed.config import RunConfig
from recembed.data import EncodedData
from recembed.data.split import Part
from recembed.embedding import FeatureEmbedding
from recembed.models import CTRModel
from recembed.rows import Piece, Processes
from recembed.run.build import embedding_of, served_model
from recembed.run.data import RunData
from recembed.run.evaluate import PartResult, part_result, user_keys
from recembed.run.files import write_table
from recembed.run.parts import validation_loader
from recembed.run.stage_folder import StageRecord
from recembed.tables import Table
from recembed.training import TrainResult
from recembed.training.predictions import gathered_logits

__all__ = ["RunResult", "evaluate_parts", "keep_results", "run_metrics", "run_warnings"]


@dataclass(frozen=True)
class RunResult:
    """A finished or interrupted run.

    Attributes:
        folder: Where it lies.
        metrics: The content of ``metrics.json``; empty after an interruption.
        training: How the training went, the last one where there were several.
        url: What opens the tracking page; empty without tracking.
        warnings: What the user should know, one sentence each.
    """

    folder: Path
    metrics: dict[str, Any]
    training: TrainResult
    url: str
    warnings: list[str]


def evaluate_parts(
    model: CTRModel, data: RunData, parts: dict[str, EncodedData], config: RunConfig, processes: Processes
) -> dict[str, PartResult]:
    """Evaluate what will be served on validation and test rows, as far as there are any; none but on rank 0."""
    model = served_model(model)
    frames = dict(data.splits.items())
    results: dict[str, PartResult] = {}
    evaluated: tuple[Part, ...] = ("valid", "test")
    for name in evaluated:
        loader = validation_loader(parts[name], config.training, processes)
        if loader is None:
            continue
        predictions = gathered_logits(model, loader, processes, embedding_of(model).device)

        def measure(name: Part = name, predictions: tuple[np.ndarray, np.ndarray] = predictions) -> None:
            groups = user_keys(frames[name], data.schema)
            results[name] = part_result(*predictions, parts[name], config, groups=groups)

        processes.first_does(measure)
    return results


def run_metrics(
    results: dict[str, PartResult], model: CTRModel, trained: TrainResult, stages: Sequence[StageRecord] = ()
) -> dict[str, Any]:
    """Return what ``metrics.json`` says of the model and its training; the seconds are those of all stages.

    All processes that trained the model call it.
    """
    store = embedding_of(model).store
    rows = sum(table.num_embeddings * table.embedding_dim for table in store.tables.values())
    return {
        "valid": results["valid"].metrics if "valid" in results else None,
        "test": results["test"].metrics if "test" in results else None,
        "embedding_bytes": embedding_of(model).bytes,
        "served_bytes": _served_bytes(embedding_of(model)),
        "optimizer_bytes": store.optimizer_bytes,
        "parameters": rows + sum(math.prod(Piece.of(p).whole) for p in model.parameters()),
        "samples_per_second": trained.samples_per_second,
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "training_seconds": sum(stage.seconds for stage in stages) if stages else trained.seconds,
        "processes": store.processes.count,
        "steps": trained.steps,
        "best_step": trained.best_step,
        "stopped": trained.stopped,
        **({"stages": [stage.told for stage in stages]} if stages else {}),
    }


def _served_bytes(embedding: FeatureEmbedding) -> int:
    """Return the bytes that are served: those planned, or counted on the compact form where training decides them."""
    decided = any(type(table).compact is not Table.compact for table in embedding.all_tables().values())
    return embedding.compact().bytes if decided else embedding.served_bytes


def keep_results(out: Path, results: dict[str, PartResult]) -> None:
    """Write predictions and slices."""
    for part, result in results.items():
        write_table(out / f"predictions_{part}.parquet", result.predictions())
        for name, frame in result.slices.items():
            write_table(out / "slices" / f"{part}_{name}.parquet", frame)


def run_warnings(trained: TrainResult, results: dict[str, PartResult]) -> list[str]:
    """Return what the user should know, one sentence each."""
    found = [f"{part}: {line}" for part, result in results.items() for line in result.metrics.get("warnings", [])]
    return [*trained.warnings, *found]
