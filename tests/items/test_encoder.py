"""Content beside the id in a model: cold items, dropout, tuning, compact form, checkpoints."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

from recembed.embedding import FeatureEmbedding, table_vectors
from recembed.errors import CheckpointError, ConfigError, DataError
from recembed.hashing import MISSING_KEY
from recembed.items.fusion import FUSIONS
from recembed.items.table import ContentTable
from recembed.models.base import CTRModel
from recembed.training.checkpoint import load_checkpoint, save_checkpoint
from tests.items import shop

NEW, BARE, UNKNOWN = 45, 2, 777  # an item without clicks; one without vectors; one of which nothing is known


def table_of(model: CTRModel) -> ContentTable:
    return cast(ContentTable, cast(FeatureEmbedding, model.embedding).tables["item"])


def vectors(model: CTRModel, *keys: int) -> Tensor:
    embedding = cast(FeatureEmbedding, model.embedding)
    return table_vectors(embedding.tables["item"], embedding.store, torch.tensor(keys))


@pytest.mark.parametrize(("fuse", "kind"), [*((fuse, "deepfm") for fuse in FUSIONS), ("gated", "dcnv2")])
def test_models_learn_with_every_fusion_and_serve_what_they_learned(tmp_path: Path, fuse: str, kind: str) -> None:
    model = shop.model(shop.content(tmp_path, fuse=fuse), kind)
    losses = shop.train(model, 3)
    assert losses[-1] < losses[0]
    embedding = cast(FeatureEmbedding, model.embedding)
    assert embedding.key_features == {"item", "history"}
    planned = embedding.served_bytes
    compact = embedding.compact()
    assert compact.bytes <= planned
    keys = torch.tensor([*range(50), UNKNOWN, UNKNOWN + 1, MISSING_KEY])
    assert torch.allclose(table_vectors(compact.tables["item"], compact.store, keys), vectors(model, *keys.tolist()))
    assert all(p.grad is not None for p in table_of(model).parameters())


@pytest.mark.parametrize("row_store", ["torch", "torchrec"])
def test_both_row_stores_say_the_same(tmp_path: Path, row_store: str) -> None:
    if row_store == "torchrec":
        pytest.importorskip("torchrec")
    encoder = shop.content(tmp_path, id_dropout=0, tune="fine_tuned")
    model, plain = shop.model(encoder, row_store=row_store), shop.model(encoder)
    assert np.allclose(shop.train(model), shop.train(plain), atol=1e-4)


def test_a_new_item_has_a_vector_of_its_content_alone(tmp_path: Path) -> None:
    model = shop.model(shop.content(tmp_path, fuse="sum"))
    shop.train(model)
    table = table_of(model)
    items = table.items_of(torch.tensor([NEW]))[0]
    wanted = sum(stream(items, []) for stream in table._streams)
    assert torch.allclose(vectors(model, NEW), cast(Tensor, wanted), atol=1e-6)
    store = cast(FeatureEmbedding, model.embedding).store
    unknown = vectors(model, UNKNOWN, MISSING_KEY)
    bucket = table.ids_of(torch.tensor([UNKNOWN]))
    assert torch.equal(unknown, store.rows("item")[[int(bucket), 1]])


def test_an_item_without_vectors_has_its_id_and_attributes(tmp_path: Path) -> None:
    model = shop.model(shop.content(tmp_path, fuse="sum"))
    table, store = table_of(model), cast(FeatureEmbedding, model.embedding).store
    items, found = table.items_of(torch.tensor([BARE]))
    clip, attributes = table._streams
    assert found.item() and not clip.known[items].item() and attributes.known[items].item()
    row = store.rows("item")[table.ids_of(torch.tensor([BARE]))]
    assert torch.allclose(vectors(model, BARE), row + attributes(items, []), atol=1e-6)


def test_provenance(tmp_path: Path) -> None:
    model = shop.model(shop.content(tmp_path))
    keys = torch.tensor([BARE, 7, NEW, 49, UNKNOWN])
    wanted = ["trained", "trained", "content", "content", "out_of_vocabulary"]
    embedding = cast(FeatureEmbedding, model.embedding)
    served = embedding.compact().tables["item"]
    assert table_of(model).provenance(keys) == wanted == served.provenance(keys)  # type: ignore[union-attr,operator]
    without = shop.model(shop.content(tmp_path, with_id=False))
    assert table_of(without).provenance(keys)[:2] == ["content", "content"]


def test_vectors_are_served_in_the_type_asked_for(tmp_path: Path) -> None:
    model = shop.model(shop.content(tmp_path), served_dtype="int8", embedding_dim=8)
    embedding = cast(FeatureEmbedding, model.embedding).eval()
    planned = embedding.served_bytes
    compact = embedding.compact()
    assert compact.bytes <= planned < 4 * (8 + 1) * (20 + 50)
    keys = torch.tensor([*range(50), UNKNOWN])
    gap = table_vectors(compact.tables["item"], compact.store, keys) - vectors(model, *keys.tolist())
    assert 0 < gap.abs().max() < 0.01 * vectors(model, *keys.tolist()).abs().max()


def test_content_only_knows_no_rows(tmp_path: Path) -> None:
    model = shop.model(shop.content(tmp_path, with_id=False))
    losses = shop.train(model, 8)
    assert losses[-1] < losses[0]
    assert "item" not in cast(FeatureEmbedding, model.embedding).store.tables
    assert torch.equal(vectors(model, UNKNOWN), vectors(model, MISSING_KEY))


def test_dropped_ids_read_content_in_training_and_their_id_in_evaluation(tmp_path: Path) -> None:
    model = shop.model(shop.content(tmp_path, fuse="sum", id_dropout=0.999))
    known = vectors(model.eval(), 7)
    dropped = vectors(model.train(), *[7] * 50)
    items = table_of(model).items_of(torch.tensor([7]))[0]
    content = cast(Tensor, sum(stream(items, []) for stream in table_of(model)._streams))
    assert (dropped - content).abs().amax(1).lt(1e-6).sum() >= 45
    assert (known - content).abs().max() > 1e-3


def test_modality_dropout_never_leaves_an_item_without_anything(tmp_path: Path) -> None:
    encoder = shop.content(tmp_path, fuse="sum", id_dropout=0.9, modality_dropout=0.9)
    model = shop.model(encoder).train()
    found = vectors(model, *[7] * 200)
    assert (found.abs().sum(1) > 0).all()
    assert len(found.unique(dim=0)) >= 4  # id, clip, attributes, and pairs of them


def test_fine_tuned_vectors_start_where_the_encoder_put_them_and_move(tmp_path: Path) -> None:
    projected = shop.model(shop.content(tmp_path, tune={"clip": "projected"}))
    tuned = shop.model(shop.content(tmp_path, tune={"clip": "fine_tuned"}))
    assert torch.equal(vectors(projected, 7, NEW, UNKNOWN), vectors(tuned, 7, NEW, UNKNOWN))
    shop.train(tuned)
    rows = cast(FeatureEmbedding, tuned.embedding).store.rows("item.clip.tuned")
    assert rows.shape == (51, 6)
    moved = rows.abs().sum(1) > 0
    place = table_of(tuned).items_of(torch.tensor([7, NEW]))[0] + 1
    assert moved[place].tolist() == [True, False]


def test_frozen_vectors_need_the_width_or_concat(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tune\.clip = 'frozen': its vectors are 6 wide .* embedding_dim = 4; set"):
        shop.model(shop.content(tmp_path, tune="frozen"))
    model = shop.model(shop.content(tmp_path, tune="frozen", fuse="concat"))
    assert table_of(model)._streams[0].embedding_dim == 6
    shop.model(shop.content(tmp_path, tune="frozen"), embedding_dim=6)


def test_gradients_of_the_streams_are_told_apart(tmp_path: Path) -> None:
    model = shop.model(shop.content(tmp_path))
    shop.train(model, 1)
    norms = table_of(model).gradient_norms()
    assert set(norms) == {"item/id", "item/clip", "item/attributes"} and min(norms.values()) > 0
    assert table_of(model).gradient_norms() == {}


def test_a_checkpoint_fits_content_of_its_own_encoders_and_a_grown_catalogue(tmp_path: Path) -> None:
    encoder = shop.content(tmp_path)
    model = shop.model(encoder)
    shop.train(model)
    save_checkpoint(tmp_path / "run", model)
    again = shop.model(encoder).eval()
    load_checkpoint(tmp_path / "run", again)
    assert torch.equal(vectors(again, 7, NEW, UNKNOWN), vectors(model, 7, NEW, UNKNOWN))
    items = pl.read_parquet(encoder["content"])
    more = pl.DataFrame({"item": [900], "genres": ["g1|g9"], "year": [1960]}, schema=items.schema)
    pl.concat([items, more]).write_parquet(tmp_path / "grown.parquet")
    grown = shop.model(encoder | {"content": str(tmp_path / "grown.parquet")}).eval()
    load_checkpoint(tmp_path / "run", grown)
    assert torch.equal(vectors(grown, 7, NEW), vectors(model, 7, NEW))
    assert (vectors(grown, 900) - vectors(model, 900)).abs().max() > 1e-3
    np.savez(tmp_path / "other.npz", item=np.arange(50), vectors=np.eye(50, 7, dtype=np.float32))
    other = shop.model(encoder | {"vectors": {"clip": str(tmp_path / "other.npz")}})
    with pytest.raises(CheckpointError, match=r"is of another model: it lacks .*scale_in_space_"):
        load_checkpoint(tmp_path / "run", other)


def test_any_method_may_keep_the_ids(tmp_path: Path) -> None:
    for method in ("hashed", "cafe"):
        table: Any = {"kind": method, "ratio": 0.5} if method == "cafe" else {"kind": method}
        table |= {"num_embeddings": 20} if method == "hashed" else {}
        model = shop.model(shop.content(tmp_path), table=table)
        losses = shop.train(model, 2)
        assert losses[-1] < losses[0]


def test_settings_and_content_that_do_not_fit(tmp_path: Path) -> None:
    encoder = shop.content(tmp_path)
    with pytest.raises(ValueError, match=r"tune\.clop: no vectors of this name; did you mean 'clip'"):
        shop.config(encoder | {"tune": {"clop": "frozen"}})
    with pytest.raises(ConfigError, match=r"features\.history\.encoder: 'history' shares the table of 'item'; set it"):
        shop.config({}, features={"history": {"encoder": encoder}}).check(shop.SCHEMA)
    np.savez(tmp_path / "far.npz", item=np.arange(1000, 1010), vectors=np.eye(10))
    only = {"vectors": {"clip": str(tmp_path / "far.npz")}, "id": "item", "cache": encoder["cache"]}
    with pytest.raises(DataError, match="not one of its 40 ids is among the 10 ids of the content"):
        shop.model(only)
    np.savez(tmp_path / "text.npz", item=np.array(["a", "b"]), vectors=np.eye(2))
    with pytest.raises(DataError, match="its ids are Int64, those of the content String"):
        shop.model(only | {"vectors": {"clip": str(tmp_path / "text.npz")}})
