import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recembed.data import fit
from recembed.errors import ExportError
from recembed.export import Manifest, verify_bundle
from recembed.export.manifest import record_files
from tests.export import shop


def seal(folder: Path) -> None:
    """Write the manifest anew, as a forger would."""
    manifest = Manifest.read(folder)
    manifest.model_copy(update={"files": record_files(folder)}).write(folder)


def test_a_whole_bundle_passes(bundle: Path) -> None:
    report = verify_bundle(bundle)
    assert (report.golden_rows, report.vectors) == (120, len(shop.fitted().vocabularies["item"].keys))
    assert report.files == len(Manifest.read(bundle).files)
    assert max(report.difference.values()) <= 1e-5


def test_a_changed_byte_is_named(copy_of: Callable[[], Path]) -> None:
    folder = copy_of()
    data = bytearray((folder / "ranker.pt2").read_bytes())
    data[len(data) // 3] ^= 1
    (folder / "ranker.pt2").write_bytes(data)
    with pytest.raises(ExportError, match=r"ranker\.pt2 was changed"):
        verify_bundle(folder)


def test_a_wrong_golden_score_under_a_fresh_seal_is_found(copy_of: Callable[[], Path]) -> None:
    folder = copy_of()
    golden = pl.read_parquet(folder / "golden.parquet")
    logits = golden["recembed.logit"].to_numpy().copy()
    logits[17] += np.float32(1e-3)
    golden.with_columns(pl.Series("recembed.logit", logits)).write_parquet(folder / "golden.parquet")
    seal(folder)
    with pytest.raises(ExportError, match="golden row 17: served logit"):
        verify_bundle(folder)


def test_fewer_vectors_under_a_fresh_seal_are_found(copy_of: Callable[[], Path]) -> None:
    folder = copy_of()
    pl.read_parquet(folder / "vectors.parquet").head(3).write_parquet(folder / "vectors.parquet")
    seal(folder)
    with pytest.raises(ExportError, match=r"holds vectors of shape \(3, 4\): expected \(\d+, 4\)"):
        verify_bundle(folder)


def test_another_mapping_under_a_fresh_seal_is_found(copy_of: Callable[[], Path]) -> None:
    folder = copy_of()
    shutil.rmtree(folder / "schema")
    fit(shop.rows(), shop.SCHEMA).save(folder / "schema")
    seal(folder)
    with pytest.raises(ExportError, match="holds another mapping than the manifest says"):
        verify_bundle(folder)
