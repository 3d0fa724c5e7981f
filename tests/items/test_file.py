"""``recembed encode`` and the file that it writes."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from recembed.errors import ConfigError
from recembed.items import ContentConfig
from recembed.items.faults import Faults
from recembed.items.file import ENCODERS_KEY, encode_to_file, parse_content
from recembed.items.given import read_vectors
from recembed.items.settings import VectorsConfig
from tests.items.towers import LettersMaker, write_items


def test_the_file_can_be_given_again_and_says_where_it_comes_from(tmp_path: Path) -> None:
    config = write_items(tmp_path, {3: "banana", 1: None, 2: "a"})
    document = encode_to_file(config, tmp_path / "v.parquet", towers={"text": LettersMaker()}, progress=False)
    source = {"width": 2, "items": 2, "encoded": 2, "encoder": {"kind": "letters", "revision": "1"}}
    assert document["sources"] == {"text": source} and document["faults"] == {"text: no text": 1}
    written = json.loads(pl.read_parquet_metadata(tmp_path / "v.parquet")[ENCODERS_KEY])
    assert written == {"text": {"kind": "letters", "revision": "1"}}
    given = read_vectors("text", VectorsConfig(path=tmp_path / "v.parquet", id="item"), faults := Faults())
    assert given.ids.to_list() == [2, 3] and given.vectors[given.rows].tolist() == [[1, 1], [6, 3]]
    assert dict(faults.counts) == {"text: no vector": 1}


def test_the_command(tmp_path: Path) -> None:
    from recembed.cli.app import app

    np.savez(tmp_path / "clip.npz", ids=np.arange(2), vectors=np.eye(2))
    (tmp_path / "items.yaml").write_text(f"vectors: {tmp_path / 'clip.npz'}\ncache: {tmp_path / 'cache'}\n")
    done = CliRunner().invoke(
        app, ["encode", str(tmp_path / "items.yaml"), "--out", str(tmp_path / "v.parquet"), "--json"]
    )
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["sources"]["vectors"]["items"] == 2
    assert pl.read_parquet(tmp_path / "v.parquet").rows() == [(0, [1.0, 0.0]), (1, [0.0, 1.0])]
    (tmp_path / "items.yaml").write_text("txt: title\n")
    done = CliRunner().invoke(app, ["encode", str(tmp_path / "items.yaml"), "--out", str(tmp_path / "v.parquet")])
    assert done.exit_code == 2 and "unknown key 'txt'; did you mean 'text'?" in done.stderr


def test_what_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"expected a file that ends in \.parquet"):
        encode_to_file(ContentConfig(vectors="a.npy"), tmp_path / "v.csv")
    with pytest.raises(ConfigError, match="attributes are learned with the model and need no encoding"):
        encode_to_file(ContentConfig(content="a.csv", id="i", attributes=["g"]), tmp_path / "v.parquet")
    with pytest.raises(ConfigError, match="config: expected keys such as content"):
        parse_content("- a")
