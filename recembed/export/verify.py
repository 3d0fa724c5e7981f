"""Proof that a bundle serves what was trained: golden rows scored again, vectors compared bit for bit."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from recembed.embedding import FeatureEmbedding
from recembed.errors import ExportError
from recembed.export.manifest import Manifest
from recembed.export.ranker import SCHEMA_FOLDER, Ranker
from recembed.export.vectors import VECTORS_FILE, known_vectors, read_vectors
from recembed.schema.fitted import FittedSchema

__all__ = [
    "GOLDEN_FILE",
    "GOLDEN_LOGIT",
    "GOLDEN_PROBABILITY",
    "TOLERANCE",
    "Report",
    "check_scores",
    "check_vectors",
    "verify_bundle",
]

GOLDEN_FILE = "golden.parquet"
GOLDEN_LOGIT = "recembed.logit"
GOLDEN_PROBABILITY = "recembed.probability"

TOLERANCE = {"probability": 1e-6, "logit": 1e-5}
"""Largest absolute difference that passes; of logits beyond 1 in size, the largest relative one."""


@dataclass(frozen=True, slots=True)
class Report:
    """What ``verify_bundle`` found.

    Attributes:
        files: Files whose checksums hold.
        golden_rows: Golden rows scored.
        vectors: Vectors found.
        difference: Largest difference of the scores, by output.
    """

    files: int
    golden_rows: int
    vectors: int
    difference: dict[str, float]


def verify_bundle(folder: Path | str) -> Report:
    """Check a bundle from end to end: checksums, mapping version, golden scores, number and width of the vectors.

    Raises:
        ExportError: something differs; the message says what.
    """
    folder = Path(folder)
    manifest = Manifest.read(folder)
    manifest.check_files(folder)
    fitted = FittedSchema.load(folder / SCHEMA_FOLDER)
    if fitted.version != manifest.mapping_version:
        raise ExportError(f"{folder / SCHEMA_FOLDER} holds another mapping than the manifest says; export again")
    golden = pl.read_parquet(folder / GOLDEN_FILE)
    difference = check_scores(Ranker(folder, fitted), golden)
    vectors = read_vectors(folder)
    if vectors.shape != (manifest.count, manifest.dimension):
        raise ExportError(
            f"{folder / VECTORS_FILE} holds vectors of shape {vectors.shape}: "
            f"expected ({manifest.count}, {manifest.dimension})"
        )
    return Report(len(manifest.files), golden.height, len(vectors), difference)


def check_scores(ranker: Ranker, golden: pl.DataFrame) -> dict[str, float]:
    """Score golden rows, all together and the first one alone, and return the largest differences.

    Raises:
        ExportError: a served score is not the trained one.
    """
    rows = pl.concat([golden, golden.head(1)])
    difference = {}
    for output, column, serve in (
        ("logit", GOLDEN_LOGIT, ranker.logits),
        ("probability", GOLDEN_PROBABILITY, ranker.probabilities),
    ):
        trained = rows[column].to_numpy().astype(np.float64)
        served = np.concatenate([serve(golden), serve(golden.head(1))]).astype(np.float64)
        difference[output] = _largest(trained, served, output)
    return difference


def _largest(trained: np.ndarray, served: np.ndarray, output: str) -> float:
    gaps = np.abs(served - trained) / np.maximum(1.0, np.abs(trained))
    gaps = np.where(np.isnan(gaps), np.inf, gaps)
    worst = int(gaps.argmax())
    if gaps[worst] > TOLERANCE[output]:
        raise ExportError(
            f"golden row {worst % (len(gaps) - 1)}: served {output} {served[worst]:.8g}, trained {trained[worst]:.8g}: "
            f"expected a difference of at most {TOLERANCE[output]:g}; the bundle would not serve what was trained"
        )
    return float(gaps[worst])


def check_vectors(folder: Path, embedding: FeatureEmbedding, fitted: FittedSchema, feature: str) -> None:
    """Compare the vectors of a bundle with the trained table, bit for bit.

    Raises:
        ExportError: a vector or a raw id differs.
    """
    frame = pl.read_parquet(folder / VECTORS_FILE)
    vocabulary = fitted.vocabulary_of(feature)
    if vocabulary is None or not frame[feature].equals(vocabulary.values.alias(feature)):
        raise ExportError(f"{folder / VECTORS_FILE}: the raw ids are not those of the vocabulary")
    served = read_vectors(folder).view(np.int32)
    start = 0
    for trained in known_vectors(embedding, fitted, feature):
        part = served[start : start + len(trained)]
        wrong = np.flatnonzero((part != np.ascontiguousarray(trained).view(np.int32)).any(axis=1))
        if wrong.size:
            row = start + int(wrong[0])
            raise ExportError(
                f"{folder / VECTORS_FILE}: the vector of {feature} {vocabulary.values[row]!r} is not the trained one"
            )
        start += len(trained)
