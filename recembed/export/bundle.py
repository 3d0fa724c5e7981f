"""``export_bundle``: a trained model → one folder that serves exactly what was trained, or an error."""

import platform
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
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
from recembed.evaluation import evaluation_mode
from recembed.export.content import write_content_vectors
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
    new_items: bool = False,
    overwrite: bool = False,
) -> Manifest:
    """Write a bundle beside ``out``, load it again, compare it with the trained model, then rename it.

    Files: ``vectors.parquet``, ``reserved_vectors.parquet``, ``id_map.parquet``, ``ranker.pt2``, ``schema/`` (the
    mapping, with the id maps of ``feature`` and of those that the graph reads: no hash method), ``golden.parquet``, ``manifest.json``, and ``vectors.faiss`` if
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
        new_items: Let it also hold the items that are known by their content alone, after the others.
        overwrite: Replace a bundle that is already there.

    Raises:
        ExportError: ``out`` exists, the feature cannot be exported, the model cannot be traced, or the bundle loaded
            again differs from the trained model. Nothing is left behind.
        MissingPackageError: ``faiss`` is asked for and not installed.
    """
    order = _Order(model, fitted, golden, feature or _item_feature(fitted), metric, dict(run or {}), faiss, new_items)
    order.check()
    out = Path(out)
    _check_target(out, overwrite)
    try:
        with evaluation_mode(model), _folder_beside(out) as folder:
            manifest = _write(order, folder)
            _move(folder, out)
    except OSError as error:
        raise ExportError(f"cannot write the bundle {out}: {error.strerror or error}") from error
    return manifest


@dataclass(frozen=True, slots=True)
class _Order:
    """What is to be exported: the arguments of ``export_bundle``."""

    model: nn.Module
    fitted: FittedSchema
    golden: pl.DataFrame
    feature: str
    metric: Metric
    run: dict[str, Any]
    faiss: bool
    new_items: bool

    def check(self) -> None:
        """Raise ``ExportError`` where these cannot make a bundle."""
        vocabulary_to_export(embedding_of(self.model), self.fitted, self.feature)
        if self.golden.height == 0:
            raise ExportError("golden has no rows, so the bundle cannot be proved; give some hundreds of raw rows")
        if self.new_items and not self.faiss:
            raise ExportError("new_items says what the FAISS index holds; ask for faiss too")


@contextmanager
def _folder_beside(out: Path) -> Iterator[Path]:
    """Make an empty folder to write in; it is gone afterwards, if it was not renamed."""
    beside = out.with_name(out.name + ".tmp")
    try:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        yield beside
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _write(order: _Order, folder: Path) -> Manifest:
    """Write all files into ``folder`` and prove them."""
    served = compact_model(order.model)
    rounding = _rounding(order, served)
    vectors, sizes = _write_parts(order, served, folder)
    if order.faiss:
        from recembed.export.faiss_index import write_index

        write_index(folder, order.metric, new_items=order.new_items)
    difference = _prove(order, embedding_of(served), folder)
    manifest = _manifest(order, folder, vectors, difference | {"compaction": rounding}, sizes)
    manifest.write(folder)
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


def _write_parts(order: _Order, served: nn.Module, folder: Path) -> tuple[VectorsRecord, dict[str, int]]:
    fitted, feature, embedding = order.fitted, order.feature, embedding_of(served)
    golden = _golden(served, fitted, order.golden)  # before the graph shares the weights
    golden.write_parquet(folder / GOLDEN_FILE)
    _served_mapping(order, embedding).save(folder / SCHEMA_FOLDER)
    write_id_map(vocabulary_to_export(embedding, fitted, feature), folder)
    vectors = write_vectors(embedding, fitted, feature, folder)
    write_content_vectors(embedding, fitted, feature, folder)
    graph = ServingGraph(served, fitted)
    torch.export.save(trace(graph, fitted.schema), folder / GRAPH_FILE)
    sizes = graph.bytes()
    sizes["graph"] = (folder / GRAPH_FILE).stat().st_size - sum(sizes.values())
    return vectors, sizes


def _served_mapping(order: _Order, embedding: FeatureEmbedding) -> FittedSchema:
    """Return the mapping with the id maps that serving reads: those of the graph, and that of the exported feature."""
    schema = order.fitted.schema
    read = {f.vocabulary_name for f in (*schema.categorical, *schema.jagged) if f.name not in embedding.key_features}
    return order.fitted.with_maps(read | {schema[order.feature].vocabulary_name})


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


def _rounding(order: _Order, served: nn.Module) -> float:
    """Return the largest difference of logits between the trained model and its compact form."""
    fitted, rows = order.fitted, order.golden
    gaps = np.abs(trained_logits(order.model, fitted, rows) - trained_logits(served, fitted, rows))
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


def _prove(order: _Order, served: FeatureEmbedding, folder: Path) -> dict[str, float]:
    """Load what was written, compare it with the trained model, and return the largest differences."""
    check_vectors(folder, served, order.fitted, order.feature)
    golden = pl.read_parquet(folder / GOLDEN_FILE)
    return check_scores(Ranker(folder, FittedSchema.load(folder / SCHEMA_FOLDER)), golden)


def _manifest(
    order: _Order, folder: Path, vectors: VectorsRecord, difference: dict[str, float], sizes: dict[str, int]
) -> Manifest:
    version = order.fitted.version
    packages = {package: metadata.version(package) for package in ("recembed", "torch", "polars")}
    return Manifest(
        space_id=space_id(str(order.run.get("run_id", "")), order.feature, version, vectors.digest),
        feature=order.feature,
        metric=order.metric,
        dimension=vectors.dimension,
        count=vectors.count,
        mapping_version=version,
        run=order.run,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        versions={"python": platform.python_version(), **packages},
        inputs=describe_inputs(order.fitted),
        tolerance=TOLERANCE,
        difference=difference,
        golden_rows=order.golden.height,
        bytes=sizes,
        files=record_files(folder),
    )


def _move(beside: Path, out: Path) -> None:
    if not out.exists():
        beside.rename(out)
        return
    old = out.with_name(out.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    out.rename(old)
    beside.rename(out)
    shutil.rmtree(old, ignore_errors=True)
