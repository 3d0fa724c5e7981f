"""``export_bundle``: a trained model → one folder that serves exactly what was trained, or an error."""

import platform
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import nn

from recembed.data import encode
from recembed.embedding import FeatureEmbedding
from recembed.errors import ExportError
from recembed.export.graph import ServingGraph, compact_model, embedding_of, trace
from recembed.export.inputs import describe_inputs, raw_columns
from recembed.export.manifest import MANIFEST_FILE, Manifest, Metric, record_files, space_id
from recembed.export.ranker import GRAPH_FILE, SCHEMA_FOLDER, Ranker
from recembed.export.vectors import VectorsRecord, vocabulary_to_export, write_id_map, write_vectors
from recembed.export.verify import (
    GOLDEN_FILE,
    GOLDEN_LOGIT,
    GOLDEN_PROBABILITY,
    TOLERANCE,
    check_scores,
    check_vectors,
)
from recembed.schema.fitted import FittedSchema

__all__ = ["export_bundle"]

_BLOCK_ROWS = 4096


def export_bundle(
    model: nn.Module,
    fitted: FittedSchema,
    out: Path | str,
    *,
    golden: pl.DataFrame,
    feature: str | None = None,
    metric: Metric = "dot",
    run: Mapping[str, Any] | None = None,
    faiss: bool = False,
    overwrite: bool = False,
) -> Manifest:
    """Write a bundle beside ``out``, load it again, compare it with the trained model, then rename it.

    Files: ``vectors.parquet``, ``reserved_vectors.parquet``, ``id_map.parquet``, ``ranker.pt2``, ``schema/`` (the
    fitted schema, with the id maps of all features), ``golden.parquet``, ``manifest.json``, and ``vectors.faiss`` if
    asked for. Vectors, id map and FAISS index have one order: that of the ids.

    Args:
        model: The trained model; it holds one ``FeatureEmbedding`` and maps a ``Batch`` to logits.
        fitted: The mapping it was trained under.
        out: The folder to make.
        golden: Raw rows, some hundreds, to prove the bundle with. A column ``recembed.logit``, if there is one, is
            what an earlier moment of the run said of these rows: the model in its compact form must still say it.
        feature: Whose vectors to export; the feature of role ``item`` if None.
        metric: How vectors are meant to be compared: ``dot`` or ``cosine``.
        run: Facts of the run for the manifest; ``run_id`` enters the space id.
        faiss: Also write an exact FAISS index.
        overwrite: Replace a bundle that is already there.

    Raises:
        ExportError: ``out`` exists, the feature cannot be exported, the model cannot be traced, or the bundle loaded
            again differs from the trained model. Nothing is left behind.
        MissingPackageError: ``faiss`` is asked for and not installed.
    """
    out, run = Path(out), dict(run or {})
    embedding = embedding_of(model)
    feature = feature or _item_feature(fitted)
    vocabulary_to_export(embedding, fitted, feature)
    _check_target(out, overwrite)
    if golden.height == 0:
        raise ExportError("golden has no rows, so the bundle cannot be proved; give some hundreds of raw rows")
    beside = out.with_name(out.name + ".tmp")
    training = model.training
    model.eval()
    try:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        served = compact_model(model)
        rounding = _rounding(model, served, fitted, golden)
        vectors, sizes = _write_parts(served, fitted, beside, feature, golden)
        if faiss:
            from recembed.export.faiss_index import write_index

            write_index(beside, metric)
        facts = {"difference": {"compaction": rounding}, "bytes": sizes}
        manifest = _prove(embedding_of(served), fitted, beside, feature, metric, run, vectors, facts)
        _move(beside, out)
    except OSError as error:
        raise ExportError(f"cannot write the bundle {out}: {error.strerror or error}") from error
    finally:
        model.train(training)
        shutil.rmtree(beside, ignore_errors=True)
    return manifest


def _item_feature(fitted: FittedSchema) -> str:
    item = fitted.schema.role("item")
    if item is None:
        raise ExportError("no feature has role 'item'; name the feature whose vectors to export")
    return item.name


def _check_target(out: Path, overwrite: bool) -> None:
    if not out.exists():
        return
    if not overwrite:
        raise ExportError(f"{out} exists; choose another folder, or set overwrite")
    if not (out / MANIFEST_FILE).is_file():
        raise ExportError(f"{out} exists and is no bundle (it has no {MANIFEST_FILE}), so it is not overwritten")


def _write_parts(
    model: nn.Module, fitted: FittedSchema, folder: Path, feature: str, golden: pl.DataFrame
) -> tuple[VectorsRecord, dict[str, int]]:
    embedding = embedding_of(model)
    _golden(model, fitted, golden).write_parquet(folder / GOLDEN_FILE)  # before the graph shares the weights
    fitted.save(folder / SCHEMA_FOLDER)
    write_id_map(vocabulary_to_export(embedding, fitted, feature), folder)
    vectors = write_vectors(embedding, fitted, feature, folder)
    graph = ServingGraph(model, fitted)
    torch.export.save(trace(graph, fitted.schema), folder / GRAPH_FILE)
    sizes = graph.bytes()
    sizes["graph"] = (folder / GRAPH_FILE).stat().st_size - sum(sizes.values())
    return vectors, sizes


def _golden(model: nn.Module, fitted: FittedSchema, rows: pl.DataFrame) -> pl.DataFrame:
    """Return the raw columns of ``rows`` with what the compact model says of them."""
    logits = trained_logits(model, fitted, rows)
    if GOLDEN_LOGIT in rows:
        earlier = rows[GOLDEN_LOGIT].to_numpy()
        gaps = np.abs(logits - earlier) / np.maximum(1.0, np.abs(earlier))
        worst = int(gaps.argmax())
        if not gaps[worst] <= TOLERANCE["logit"]:
            raise ExportError(
                f"golden row {worst}: the model as served says logit {logits[worst]:.8g}, the run said {earlier[worst]:.8g}; "
                "these are not the weights of that run"
            )
    probabilities = torch.sigmoid(torch.from_numpy(logits)).numpy()
    scores = [pl.Series(GOLDEN_LOGIT, logits), pl.Series(GOLDEN_PROBABILITY, probabilities)]
    return rows.select(raw_columns(fitted.schema)).with_columns(scores)


def _rounding(model: nn.Module, served: nn.Module, fitted: FittedSchema, rows: pl.DataFrame) -> float:
    """Return the largest difference of logits between the trained model and its compact form."""
    gaps = np.abs(trained_logits(model, fitted, rows) - trained_logits(served, fitted, rows))
    return float(gaps.max())


@torch.no_grad()
def trained_logits(model: nn.Module, fitted: FittedSchema, rows: pl.DataFrame) -> np.ndarray:
    """Return float32 ``[N]``: the logits of raw rows by the training road, encoding and all."""
    embedding = embedding_of(model)
    data = encode(rows, fitted, key_features=embedding.key_features, labels=False)
    device = embedding.device
    parts = [
        model(data.batch(places).to(device)).float().cpu().numpy()
        for places in np.split(np.arange(len(data)), range(_BLOCK_ROWS, len(data), _BLOCK_ROWS))
    ]
    return np.concatenate(parts)


def _prove(
    embedding: FeatureEmbedding,
    fitted: FittedSchema,
    folder: Path,
    feature: str,
    metric: Metric,
    run: dict[str, Any],
    vectors: VectorsRecord,
    facts: dict[str, Any],
) -> Manifest:
    """Load what was written, compare it with the trained model, and seal it with a manifest."""
    check_vectors(folder, embedding, fitted, feature)
    golden = pl.read_parquet(folder / GOLDEN_FILE)
    difference = check_scores(Ranker(folder, FittedSchema.load(folder / SCHEMA_FOLDER)), golden)
    manifest = Manifest(
        space_id=space_id(str(run.get("run_id", "")), feature, fitted.version, vectors.digest),
        feature=feature,
        metric=metric,
        dimension=vectors.dimension,
        count=vectors.count,
        mapping_version=fitted.version,
        run=run,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        versions={
            "python": platform.python_version(),
            **{package: metadata.version(package) for package in ("recembed", "torch", "polars")},
        },
        inputs=describe_inputs(fitted),
        tolerance=TOLERANCE,
        difference=difference | facts["difference"],
        golden_rows=golden.height,
        bytes=facts["bytes"],
        files=record_files(folder),
    )
    manifest.write(folder)
    return manifest


def _move(beside: Path, out: Path) -> None:
    if not out.exists():
        beside.rename(out)
        return
    old = out.with_name(out.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    out.rename(old)
    beside.rename(out)
    shutil.rmtree(old, ignore_errors=True)
