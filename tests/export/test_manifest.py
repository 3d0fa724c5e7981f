import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recembed.errors import ExportError
from recembed.export import Manifest


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_changed_bit_of_the_manifest_is_noticed(bundle: Path, tmp_path: Path, place: float, bit: int) -> None:
    data = bytearray((bundle / "manifest.json").read_bytes())
    data[int(place * len(data))] ^= 1 << bit
    (tmp_path / "manifest.json").write_bytes(data)
    with pytest.raises(ExportError, match=r"manifest\.json"):
        Manifest.read(tmp_path)


def test_an_unknown_format_is_refused(bundle: Path, tmp_path: Path) -> None:
    raw = json.loads((bundle / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps({**raw, "format": "recembed bundle 7"}))
    with pytest.raises(ExportError, match="format = 'recembed bundle 7': this recembed reads 'recembed bundle 1'"):
        Manifest.read(tmp_path)


def test_a_folder_without_manifest_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"manifest\.json does not exist; a bundle is a folder written by"):
        Manifest.read(tmp_path)


def test_every_file_is_checked(bundle: Path, copy_of: Callable[[], Path]) -> None:
    names = list(Manifest.read(bundle).files)
    assert {"vectors.parquet", "ranker.pt2", "schema/fitted.json", "golden.parquet", "vectors.faiss"} <= set(names)
    copy = copy_of()
    manifest = Manifest.read(copy)
    manifest.check_files(copy)
    for name in names:
        path = copy / name
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        with pytest.raises(ExportError, match=f"{name} was changed after the export"):
            manifest.check_files(copy)
        path.unlink()
        with pytest.raises(ExportError, match=f"{name} is missing from the bundle"):
            manifest.check_files(copy)
        shutil.copy(bundle / name, path)
