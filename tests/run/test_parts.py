"""Rows that processes share are encoded once, and again only where they are not those of the run."""

from pathlib import Path

import pytest

from recembed.config import RunConfig
from recembed.rows import Processes
from recembed.run import build_model, open_data
from recembed.run import parts as parts_module
from recembed.run.parts import encode_shared, fit_shared
from tests.run.clicks import clicks, settings


def test_a_resumed_run_takes_the_rows_it_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clicks().write_parquet(tmp_path / "clicks.parquet")
    data = open_data(RunConfig.parse(settings(tmp_path / "clicks.parquet")))
    fitted = fit_shared(data, tmp_path, Processes(), resume=False)
    model, encoded, encode_to = build_model(fitted, data.config), [], parts_module.encode_to

    def counted(*arguments: object, **named: object) -> object:
        encoded.append(Path(str(arguments[2])).name)
        return encode_to(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(parts_module, "encode_to", counted)
    parts = [encode_shared(data, tmp_path, fitted, model, Processes(), resume=resume) for resume in (False, True)]
    assert encoded == ["train", "valid", "test"]
    assert [len(part) for part in parts[1].values()] == [840, 180, 180]
    assert all((part.labels == parts[0][name].labels).all() for name, part in parts[1].items())
    (tmp_path / "encoded" / "valid" / "ids.npy").write_bytes(b"")
    encode_shared(data, tmp_path, fitted, model, Processes(), resume=True)
    assert encoded[3:] == ["valid"]
