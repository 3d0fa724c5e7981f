"""One bundle for all tests that only read it; tests that damage one take a copy."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from recembed.export import export_bundle
from tests.export import shop


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A multiplexed DeepFM's items, rows in torchrec, with a FAISS index, under cosine."""
    pytest.importorskip("faiss")
    out = tmp_path_factory.mktemp("export") / "bundle"
    run = {"run_id": "run 1", "metrics": {"auc": 0.5}}
    model = shop.trained("multiplexed")
    export_bundle(model, shop.fitted(), out, golden=shop.rows().tail(120), metric="cosine", run=run, faiss=True)
    return out


@pytest.fixture
def copy_of(bundle: Path, tmp_path: Path) -> Callable[[], Path]:
    """Return a function that makes a fresh copy of the bundle."""

    def copy() -> Path:
        target = tmp_path / "copy"
        shutil.rmtree(target, ignore_errors=True)
        return Path(shutil.copytree(bundle, target))

    return copy
