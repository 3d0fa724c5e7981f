"""``recembed doctor``: what is installed, whether it fits together, and the line that mends what does not."""

import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlparse

from recembed.versions import NEWEST_TORCH, Versions, faults, installed_versions, pairing_lines

__all__ = ["Check", "check_cache", "check_data", "check_pair", "check_python", "check_tracking", "diagnose"]

Status = Literal["ok", "warn", "fail"]

XXHASH64_OF_ABC = 0x44BC2CF5AD770999
"""xxHash64 of the three letters ``abc`` under seed 0, as its specification gives it."""

_TRY_ROW_STORE = """
import sys, torch
from recembed.rows import SGD, RowTable, make_row_store
store = make_row_store(sys.argv[1], [RowTable("doctor", 3, 4)], optimizer=SGD(learning_rate=1.0))
before = store.rows("doctor").clone()
store(torch.tensor([1, 1]), 4).sum().backward()
moved = (before - store.rows("doctor")).round().tolist()
assert moved == [[0.0] * 4, [2.0] * 4, [0.0] * 4], f"rows moved by {moved}"
"""
_SECONDS_PER_TRY = 120


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report.

    Attributes:
        name: What was looked at.
        status: ``ok``; ``warn``, recembed works without it; ``fail``, something will not work.
        value: What was found.
        fix: The line that mends it, empty where all is well.
    """

    name: str
    status: Status
    value: str
    fix: str = ""


def diagnose(environment: Mapping[str, str] = os.environ) -> list[Check]:
    """Look at everything recembed stands on; takes some seconds, changes nothing."""
    versions = installed_versions()
    report = [check_python(sys.version_info[:3]), check_pair(versions)]
    if versions.torch:
        report += _check_devices()
        with ThreadPoolExecutor() as pool:
            report += pool.map(_check_row_store, ("torch", "torchrec"))
    report.append(_check_string_hash())
    report.append(check_tracking(environment.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"))
    report.append(check_cache(Path(environment.get("RECEMBED_CACHE") or Path.home() / ".cache" / "recembed")))
    report.append(check_data(environment.get("RECEMBED_DATA")))
    return report


def check_python(version: tuple[int, ...]) -> Check:
    """Check the Python release.

    >>> check_python((3, 10, 4)).status
    'fail'
    """
    shown = ".".join(map(str, version))
    if (3, 11) <= version[:2] <= (3, 13):
        return Check("Python", "ok", shown)
    return Check("Python", "fail", f"{shown}: expected 3.11 to 3.13", "python3.12 -m venv .venv")


def check_pair(versions: Versions, platform: str = sys.platform) -> Check:
    """Check that fbgemm and torchrec are built for the installed torch."""
    name = "torch, fbgemm, torchrec"
    if versions.torch is None:
        return Check(name, "fail", "torch is not installed", f"pip install torch=={NEWEST_TORCH}")
    fix = " && ".join(pairing_lines(versions))
    wrong = faults(versions)
    if wrong:
        return Check(name, "fail", f"{versions}: {'; '.join(wrong)}", fix)
    if versions.torchrec is None:
        value = f"{versions}; without torchrec the row store 'torch' is used"
        return Check(name, "warn", value, fix) if platform == "linux" else Check(name, "ok", value)
    return Check(name, "ok", str(versions))


def _check_devices() -> list[Check]:
    import torch

    fast = "bf16 in hardware" if torch.cpu.get_capabilities().get("avx512_bf16") else "bf16 emulated, slow"
    cores = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, {fast}"
    report = [Check("CPU", "ok", cores)]
    if not torch.cuda.is_available():
        return [*report, Check("CUDA", "ok", "no device; training runs on the CPU")]
    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        bf16 = "bf16" if device.major >= 8 else "no bf16"
        value = f"{device.name}, {device.total_memory / 2**30:.0f} GiB, {bf16}"
        report.append(Check(f"CUDA {index}", "ok", value))
    return report


def _check_row_store(name: str) -> Check:
    """Look up and update three rows in a process of its own, which a build that does not fit may crash."""
    title = f"row store {name}"
    try:
        trial = subprocess.run(
            [sys.executable, "-c", _TRY_ROW_STORE, name],
            capture_output=True,
            text=True,
            timeout=_SECONDS_PER_TRY,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Check(title, "fail", f"no answer within {_SECONDS_PER_TRY} seconds", "set row_store to 'torch'")
    if trial.returncode == 0:
        return Check(title, "ok", "looks up and updates rows")
    said = trial.stderr.strip().splitlines()
    reason = said[-1] if said else f"the process ended with {trial.returncode}"
    if name == "torch":
        return Check(title, "fail", reason, f"pip install torch=={NEWEST_TORCH}")
    fix = " && ".join(pairing_lines(installed_versions())) or "set row_store to 'torch'"
    return Check(title, "warn", reason, fix)


def _check_string_hash() -> Check:
    name = "string keys"
    try:
        import polars as pl
        import polars_hash

        found = pl.DataFrame({"text": ["abc"]}).select(polars_hash.col("text").nchash.xxhash64()).item()
    except ImportError as error:
        return Check(name, "fail", f"polars-hash does not load ({error})", "pip install --upgrade polars polars-hash")
    if found == XXHASH64_OF_ABC:
        return Check(name, "ok", "polars-hash gives xxHash64")
    return Check(name, "fail", "polars-hash gives another hash than xxHash64", "pip install --upgrade polars-hash")


def check_tracking(uri: str) -> Check:
    """Check that the MLflow store answers; a local one need not exist yet."""
    name = "MLflow store"
    place = urlparse(uri)
    if place.scheme in ("http", "https"):
        return _check_server(name, uri, place.hostname or "", place.port or (443 if place.scheme == "https" else 80))
    if place.scheme == "sqlite":
        return _check_sqlite(name, uri, Path(unquote(place.path[1:])))
    if place.scheme in ("", "file"):
        fault = _unwritable(Path(unquote(place.path)))
        return Check(name, "warn", f"{uri}: {fault}", _OTHER_STORE) if fault else Check(name, "ok", uri)
    return Check(name, "ok", f"{uri} (not tried)")


_OTHER_STORE = "export MLFLOW_TRACKING_URI=sqlite:////path/you/may/write/mlflow.db"


def _check_server(name: str, uri: str, host: str, port: int) -> Check:
    try:
        socket.create_connection((host, port), timeout=3).close()
    except OSError as error:
        fix = f"start that server, or keep runs in a file: {_OTHER_STORE}"
        return Check(name, "warn", f"{uri} does not answer ({error}); training goes on without it", fix)
    return Check(name, "ok", f"{uri} answers")


def _check_sqlite(name: str, uri: str, path: Path) -> Check:
    if not path.exists():
        fault = _unwritable(path.parent)
        return Check(name, "warn", f"{uri}: {fault}", _OTHER_STORE) if fault else Check(name, "ok", f"{uri} (new)")
    try:
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
        try:
            runs = connection.execute("SELECT count(*) FROM runs").fetchone()[0]
        finally:
            connection.close()
    except sqlite3.Error as error:
        return Check(name, "warn", f"{uri}: {error}", f"move {path} away, or: {_OTHER_STORE}")
    return Check(name, "ok", f"{uri} ({runs} runs)")


def check_cache(folder: Path) -> Check:
    """Check that downloads can be kept in ``folder``."""
    fault = _unwritable(folder)
    if fault:
        return Check("cache", "warn", f"{folder}: {fault}", "export RECEMBED_CACHE=/path/you/may/write")
    free = shutil.disk_usage(_nearest(folder)).free
    return Check("cache", "ok", f"{folder} ({free / 1e9:.0f} GB free)")


def check_data(folder: str | None) -> Check:
    """Check the folder of data sets, which is optional."""
    if not folder:
        return Check("data", "ok", "RECEMBED_DATA is not set; named data sets come from the cache or are downloaded")
    if Path(folder).is_dir():
        return Check("data", "ok", folder)
    return Check("data", "fail", f"RECEMBED_DATA = {folder}: no such folder", "unset RECEMBED_DATA")


def _nearest(folder: Path) -> Path:
    """Return the folder itself or the nearest one above it that exists."""
    folder = folder.absolute()
    return next(place for place in (folder, *folder.parents) if place.exists())


def _unwritable(folder: Path) -> str:
    """Say why nothing can be written to ``folder``, which need not exist yet; empty where it can."""
    try:
        with tempfile.TemporaryFile(dir=_nearest(folder)):
            return ""
    except OSError as error:
        return error.strerror or str(error)
