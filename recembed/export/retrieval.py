"""A trained retrieval model → two bundles of one space, users and items, proved by what the evaluation recommended.

Axes: ``N`` ids of one side, ``D`` width, ``G`` golden users, ``K`` items of a list.
"""

import hashlib
import platform
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recembed.data.keys import to_keys
from recembed.errors import ExportError
from recembed.export.manifest import Manifest, Metric, record_files, space_id
from recembed.export.sides import SIDES, Side, is_pair, read_side
from recembed.export.vectors import ID_MAP_FILE, VECTORS_FILE, read_vectors
from recembed.export.verify import GOLDEN_FILE, Report

__all__ = ["SIDES", "Side", "brute_force", "export_sides", "is_pair", "verify_pair"]

_TOLERANCE = 1e-5


def export_sides(
    users: Side,
    items: Side,
    out: Path | str,
    *,
    golden: pl.DataFrame,
    metric: Metric = "dot",
    run: Mapping[str, Any] | None = None,
    faiss: bool = False,
    overwrite: bool = False,
) -> dict[str, Manifest]:
    """Write ``out/users`` and ``out/items``, load them again, compare what they recommend, then rename ``out``.

    Each holds ``vectors.parquet`` (raw id, ``vector``, ``training_count``, and ``provenance`` where not all vectors were
    trained), ``id_map.parquet``, ``golden.parquet`` and
    ``manifest.json``, that of items with ``faiss`` also ``vectors.faiss``. The two have one space id: an inner product
    of a user and an item is a score.

    Args:
        users: One side.
        items: The other.
        out: The folder to make.
        golden: ``user``, ``seen`` (items that are left out), ``top`` (what the evaluation put first, in order).
        metric: How items are compared with each other; users and items are scored by inner product.
        run: Facts of the run for the manifests; ``run_id`` enters the space id.
        faiss: Also write an exact FAISS index of the items.
        overwrite: Replace bundles that are already there.

    Raises:
        ExportError: ``out`` exists, a vector is not finite, or the bundles recommend something else. Nothing is left
            behind.
    """
    out, run = Path(out), dict(run or {})
    if out.exists() and not (overwrite and is_pair(out)):
        fix = "choose another folder, or set overwrite" if is_pair(out) else "it is no export, so it is not overwritten"
        raise ExportError(f"{out} exists; {fix}")
    beside = out.with_name(out.name + ".tmp")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        for folder, side in zip(SIDES, (users, items), strict=True):
            _write_side(beside / folder, side, golden)
        if faiss:
            from recembed.export.faiss_index import write_index

            write_index(beside / "items", metric)
        difference = _prove(beside)
        space = _space(run, users.trained(), items.trained())
        manifests = {
            folder: _manifest(beside / folder, side, space, metric, run, golden.height, difference)
            for folder, side in zip(SIDES, (users, items), strict=True)
        }
        shutil.rmtree(out, ignore_errors=True)
        beside.rename(out)
    except OSError as error:
        raise ExportError(f"cannot write {out}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return manifests


def verify_pair(folder: Path) -> dict[str, Report]:
    """Check both bundles from end to end: checksums, one space, and what they recommend.

    Raises:
        ExportError: something differs; the message says what.
    """
    manifests = {side: Manifest.read(folder / side) for side in SIDES}
    for side, manifest in manifests.items():
        manifest.check_files(folder / side)
    if manifests["users"].space_id != manifests["items"].space_id:
        raise ExportError(f"{folder}: users and items are of two runs, so their scores mean nothing; export again")
    difference = _prove(folder)
    return {
        side: Report(len(manifest.files), manifest.golden_rows, len(read_vectors(folder / side)), {"score": difference})
        for side, manifest in manifests.items()
    }


def brute_force(folder: Path, user: Any, *, seen: pl.Series, k: int) -> tuple[pl.Series, np.ndarray]:
    """Return the ``k`` best items of a user from the files alone, and their scores; equal scores in the file's order."""
    people = pl.read_parquet(folder / "users" / VECTORS_FILE)
    row = people.to_series(0).index_of(user)
    if row is None:
        raise ExportError(f"{folder / 'users'} has no vector of user {user!r}")
    items = pl.read_parquet(folder / "items" / VECTORS_FILE).to_series(0)
    return _best(items, _scores(read_vectors(folder / "items"), read_vectors(folder / "users")[row]), seen, k)


def _scores(items: np.ndarray, user: np.ndarray) -> np.ndarray:
    scores: np.ndarray = items.astype(np.float64) @ user.astype(np.float64)
    return scores


def _best(items: pl.Series, scores: np.ndarray, seen: pl.Series, k: int) -> tuple[pl.Series, np.ndarray]:
    scores = np.where(items.is_in(seen.cast(items.dtype).implode()).to_numpy(), -np.inf, scores)
    order = np.argsort(-scores, kind="stable")[:k]
    order = order[np.isfinite(scores[order])]
    return items[order], scores[order]


def _prove(folder: Path) -> float:
    """Compare what the files recommend with what the evaluation did; return the largest difference of scores.

    Where items tie within float32, their order may differ; their scores must not.
    """
    sides = [read_side(folder / side).trained() for side in SIDES]  # what the evaluation knew
    (people, items), (users, vectors) = [side.ids for side in sides], [side.vectors for side in sides]
    golden = pl.read_parquet(folder / "users" / GOLDEN_FILE)
    places = dict(zip(items.to_list(), range(len(items)), strict=True))
    worst = 0.0
    for user, seen, top in golden.select("user", "seen", "top").iter_rows():
        row = people.index_of(user)
        if row is None:
            raise ExportError(f"golden user {user!r} has no vector in {folder / 'users'}")
        scores = _scores(vectors, users[row])
        _, best = _best(items, scores, pl.Series(seen, dtype=items.dtype), len(top))
        evaluated = scores[[places[item] for item in top]]
        size = max(1.0, float(np.abs(best).max(initial=0.0)))
        gap = float(np.abs(best - evaluated).max(initial=0.0)) / size if len(best) == len(top) else np.inf
        if not gap <= _TOLERANCE:
            raise ExportError(
                f"golden user {user!r}: the files recommend other items than the evaluation did (scores differ by {gap:.3g}, "
                f"expected at most {_TOLERANCE:g}); these are not the vectors of that run"
            )
        worst = max(worst, gap)
    return worst


def _write_side(folder: Path, side: Side, golden: pl.DataFrame) -> None:
    broken = np.flatnonzero(~np.isfinite(side.vectors).all(axis=1))
    if broken.size:
        raise ExportError(
            f"{side.name}: the vectors of {broken.size} ids, among them {side.ids[int(broken[0])]!r}, are not finite; "
            "the training diverged"
        )
    if side.name in ("vector", "training_count", "provenance"):
        raise ExportError(f"feature {side.name!r} has the name of a column of {VECTORS_FILE}; rename the feature")
    folder.mkdir(parents=True)
    ids = side.ids.alias(side.name)
    vectors = pl.Series("vector", side.vectors, dtype=pl.Array(pl.Float32, side.vectors.shape[1]))
    marks = [] if side.provenance is None else [side.provenance.alias("provenance")]
    counts = pl.Series("training_count", side.counts)
    pl.DataFrame([ids, vectors, counts, *marks]).write_parquet(folder / VECTORS_FILE)
    keys = pl.Series("key", to_keys(side.ids))
    pl.DataFrame([keys, pl.Series("id", np.arange(len(ids))), ids.alias("value")]).write_parquet(folder / ID_MAP_FILE)
    golden.write_parquet(folder / GOLDEN_FILE)


def _space(run: Mapping[str, Any], users: Side, items: Side) -> str:
    digest = hashlib.sha256(np.ascontiguousarray(users.vectors).data)
    digest.update(np.ascontiguousarray(items.vectors).data)
    return space_id(
        str(run.get("run_id", "")), f"{users.name}, {items.name}", _mapping(users, items), digest.hexdigest()
    )


def _mapping(*sides: Side) -> str:
    digest = hashlib.sha256()
    for side in sides:
        digest.update("\x1f".join(side.ids.cast(pl.String)).encode())
    return digest.hexdigest()[:16]


def _manifest(
    folder: Path, side: Side, space: str, metric: Metric, run: dict[str, Any], golden_rows: int, difference: float
) -> Manifest:
    packages = ("recembed", "torch", "polars")
    manifest = Manifest(
        space_id=space,
        feature=side.name,
        metric=metric,
        dimension=side.vectors.shape[1],
        count=len(side.vectors),
        mapping_version=_mapping(side),
        run=run,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        versions={"python": platform.python_version(), **{package: metadata.version(package) for package in packages}},
        inputs={},
        tolerance={"score": _TOLERANCE},
        difference={"score": difference},
        golden_rows=golden_rows,
        bytes={"embeddings": side.vectors.nbytes},
        files=record_files(folder),
    )
    manifest.write(folder)
    return manifest
