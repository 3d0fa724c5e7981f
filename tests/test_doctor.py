import socket
import sqlite3
from pathlib import Path

import pytest

from recembed import doctor
from recembed.doctor import check_cache, check_data, check_pair, check_python, check_tracking, diagnose
from recembed.versions import Versions


@pytest.fixture
def file_as_folder(tmp_path: Path) -> Path:
    """A path below a file: nobody, not even root, can write there."""
    (tmp_path / "file").write_text("")
    return tmp_path / "file" / "folder"


@pytest.mark.parametrize(
    ("version", "status"), [((3, 10, 14), "fail"), ((3, 11, 0), "ok"), ((3, 13, 9), "ok"), ((3, 14, 0), "fail")]
)
def test_python_releases(version: tuple[int, int, int], status: str) -> None:
    assert check_python(version).status == status


def test_a_wrong_pair_fails_with_the_exact_line() -> None:
    check = check_pair(Versions(torch="2.13.0+cpu", fbgemm_gpu_cpu="1.6.0", torchrec="1.6.0"))
    assert check.status == "fail"
    assert "fbgemm-gpu-cpu 1.6.0 is built for torch 2.11, not 2.13.0+cpu" in check.value
    assert "torchrec 1.6.0 is built for torch 2.11" in check.value
    assert check.fix == (
        "pip install 'fbgemm-gpu-cpu==1.8.*' && "
        "pip install tensordict torchmetrics==1.0.3 pyre-extensions tqdm setuptools && "
        "pip install --no-deps 'torchrec==1.8.*'"
    )


def test_no_torch_is_a_failure() -> None:
    check = check_pair(Versions(torch=None))
    assert (check.status, check.value, check.fix) == ("fail", "torch is not installed", "pip install torch==2.13.0")


@pytest.mark.parametrize(("platform", "status"), [("linux", "warn"), ("darwin", "ok")])
def test_no_torchrec_is_no_failure(platform: str, status: str) -> None:
    check = check_pair(Versions(torch="2.13.0"), platform)
    assert check.status == status
    assert "the row store 'torch' is used" in check.value
    assert ("fbgemm-gpu-cpu==1.8" in check.fix) == (platform == "linux")


def test_a_new_sqlite_store_needs_a_folder_to_write_to(tmp_path: Path, file_as_folder: Path) -> None:
    assert check_tracking(f"sqlite:///{tmp_path}/new.db").value == f"sqlite:///{tmp_path}/new.db (new)"
    assert not (tmp_path / "new.db").exists()
    check = check_tracking(f"sqlite:///{file_as_folder}/new.db")
    assert (check.status, "Not a directory" in check.value) == ("warn", True)
    assert check.fix.startswith("export MLFLOW_TRACKING_URI=")


def test_a_sqlite_store_is_opened(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "mlflow.db")
    connection.execute("CREATE TABLE runs (id)")
    connection.execute("INSERT INTO runs VALUES (1), (2)")
    connection.commit()
    connection.close()
    assert check_tracking(f"sqlite:///{tmp_path}/mlflow.db").value.endswith("(2 runs)")
    (tmp_path / "broken.db").write_text("this is no database, whatever its name says. " * 30)
    check = check_tracking(f"sqlite:///{tmp_path}/broken.db")
    assert (check.status, "file is not a database" in check.value) == ("warn", True)


def test_a_server_answers_or_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        uri = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert check_tracking(uri).value == f"{uri} answers"
    check = check_tracking(uri)
    assert (check.status, "does not answer" in check.value) == ("warn", True)
    assert "MLFLOW_TRACKING_URI=sqlite:" in check.fix


def test_the_cache_must_be_writable(tmp_path: Path, file_as_folder: Path) -> None:
    assert check_cache(tmp_path / "not" / "yet").status == "ok"
    assert list(tmp_path.iterdir()) == [file_as_folder.parent]
    check = check_cache(file_as_folder)
    assert (check.status, check.fix) == ("warn", "export RECEMBED_CACHE=/path/you/may/write")


def test_the_data_folder_may_be_unset_but_not_wrong(tmp_path: Path) -> None:
    assert check_data(None).status == "ok"
    assert check_data(str(tmp_path)).value == str(tmp_path)
    check = check_data(str(tmp_path / "gone"))
    assert (check.status, check.fix) == ("fail", "unset RECEMBED_DATA")
    assert check.value == f"RECEMBED_DATA = {tmp_path / 'gone'}: no such folder"


def test_this_machine_is_diagnosed(tmp_path: Path) -> None:
    report = diagnose({"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db", "RECEMBED_CACHE": str(tmp_path)})
    by_name = {check.name: check for check in report}
    assert by_name["row store torch"].status == "ok"
    assert by_name["string keys"].status == "ok"
    assert by_name["row store torchrec"].status == (
        "ok" if by_name["torch, fbgemm, torchrec"].status == "ok" else "warn"
    )
    assert all(check.fix for check in report if check.status != "ok")
    assert list(tmp_path.iterdir()) == []


def test_a_row_store_that_crashes_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_TRY_ROW_STORE", "import os; os.abort()")
    check = doctor._check_row_store("torchrec")
    assert (check.status, check.value, check.fix != "") == ("warn", "the process ended with -6", True)
