"""Encoding: what is cached, what is masked, what stops, and that nothing depends on the order of rows."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recembed.errors import ConfigError, DataError
from recembed.items import ContentConfig, EncodedItems, encode_items
from tests.items.towers import LettersMaker, write_items


def encoded(config: ContentConfig, maker: LettersMaker | None = None) -> EncodedItems:
    return encode_items(config, towers={"text": maker or LettersMaker()}, progress=False)


def by_id(items: EncodedItems, source: str = "text") -> dict[Any, list[float] | None]:
    frame = items.to_frame("item")
    return dict(zip(frame["item"].to_list(), frame[source].to_list(), strict=True))


def test_worked_by_hand_and_keyed_by_id_whatever_the_order(tmp_path: Path) -> None:
    wanted = {7: [6.0, 3.0], 3: [2.0, 0.0], 5: [1.0, 1.0]}
    assert by_id(encoded(write_items(tmp_path, {7: "banana", 3: "Up", 5: "a"}))) == wanted
    assert by_id(encoded(write_items(tmp_path, {5: "a", 7: "banana", 3: "Up"}))) == wanted


def test_text_ids(tmp_path: Path) -> None:
    assert by_id(encoded(write_items(tmp_path, {"x1": "aa", "x0": "b"}))) == {"x1": [2.0, 2.0], "x0": [1.0, 0.0]}


def test_a_second_run_loads_no_encoder_and_a_change_encodes_what_changed(tmp_path: Path) -> None:
    titles = {1: "one", 2: "two", 3: "three", 4: "one"}
    first = encoded(write_items(tmp_path, titles), maker := LettersMaker())
    assert first.encoded == {"text": 3} and maker.loads == 1  # equal content once
    again = encoded(write_items(tmp_path, titles), maker := LettersMaker())
    assert again.encoded == {"text": 0} and maker.loads == 0
    assert isinstance(again.vectors["text"].matrix, np.memmap)
    changed = encoded(write_items(tmp_path, titles | {2: "zwei", 5: "three"}), maker := LettersMaker())
    assert changed.encoded == {"text": 1} and maker.tower.batches == [1]
    assert by_id(changed)[2] == [4.0, 0.0] and by_id(changed)[5] == [5.0, 0.0]


def test_another_revision_encodes_anew_in_a_space_of_its_own(tmp_path: Path) -> None:
    config = write_items(tmp_path, {1: "one"})
    first, second = encoded(config), encoded(config, LettersMaker("2"))
    assert second.encoded == {"text": 1}
    assert first.vectors["text"].space != second.vectors["text"].space
    assert {'"revision": "1"', '"revision": "2"'} == {
        line.strip().rstrip(",")
        for record in (tmp_path / "cache").glob("*/encoder.json")
        for line in record.read_text().splitlines()
        if "revision" in line
    }


def test_missing_and_broken_content_is_masked_and_counted(tmp_path: Path) -> None:
    titles = {1: "ok", 2: None, 3: "  ", 4: "unreadable", 5: "nan", 6: "lost \ufffd"}
    items = encoded(write_items(tmp_path, titles))
    assert dict(items.faults.counts) == {
        "text: no text": 1,
        "text: empty text": 1,
        "text: letters lost to a wrong encoding (encoded as they are)": 1,
        "text: unreadable text": 1,
        "text: the encoder gave NaN or infinity": 1,
    }
    assert items.vectors["text"].present.tolist() == [True, False, False, False, False, True]
    assert by_id(items) == {1: [2.0, 0.0], 2: None, 3: None, 4: None, 5: None, 6: [6.0, 0.0]}


def test_what_was_broken_is_tried_again(tmp_path: Path) -> None:
    config = write_items(tmp_path, {1: "ok", 2: "bad"})
    maker = LettersMaker()
    maker.tower.broken = "bad"
    first = encoded(config, maker)
    assert by_id(first)[2] is None and dict(first.faults.counts) == {"text: the encoder failed": 1}
    assert encoded(config).encoded == {"text": 1}
    assert by_id(encoded(config))[2] == [3.0, 1.0]


def test_one_bad_item_stops_the_rest_only_if_asked_to(tmp_path: Path) -> None:
    config = write_items(tmp_path, {1: "ok", 2: "unreadable"}).model_copy(update={"on_error": "stop"})
    with pytest.raises(
        DataError, match=r"text: unreadable text: 1 items, the first is 2; mend it, or set on_error: mask"
    ):
        encoded(config)


def test_out_of_memory_takes_smaller_batches_and_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = write_items(tmp_path, {i: "a" * (i + 1) for i in range(10)}).model_copy(update={"batch_size": 8})
    maker = LettersMaker()
    maker.tower.fits = 3
    with caplog.at_level(logging.WARNING, "recembed.items"):
        items = encoded(config, maker)
    assert "out of memory; going on with batch_size 2" in caplog.text
    assert max(maker.tower.batches) == 2 and sum(maker.tower.batches) == 10
    assert by_id(items) == {i: [i + 1.0, i + 1.0] for i in range(10)}


def test_memory_for_not_even_one_item_is_an_error(tmp_path: Path) -> None:
    maker = LettersMaker()
    maker.tower.fits = 0
    with pytest.raises(DataError, match=r"memory does not suffice to encode item 1 alone .* choose device: cpu"):
        encoded(write_items(tmp_path, {1: "one"}), maker)


def test_long_texts_come_first(tmp_path: Path) -> None:
    class Ordered(LettersMaker):
        def order(self, items: Any) -> np.ndarray:
            return np.argsort([-len(item) for item in items])

    maker, seen = Ordered(), []
    encode = maker.tower.encode
    maker.tower.encode = lambda texts: (seen.extend(texts), encode(texts))[1]  # type: ignore[method-assign]
    encoded(write_items(tmp_path, {1: "a", 2: "aaa", 3: "aa"}), maker)
    assert seen == ["aaa", "aa", "a"]


def test_ids_that_repeat_or_are_missing(tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    path.write_text("item,title\n1,one\n1,one\n2,two\n2,zwei\n,lost\n")
    config = ContentConfig(content=str(path), id="item", text="title", cache=tmp_path / "cache")
    items = encoded(config)
    assert dict(items.faults.counts) == {
        "content: rows without an id": 1,
        "content: ids with different content (the first is kept)": 1,
    }
    assert by_id(items) == {1: [3.0, 0.0], 2: [3.0, 0.0]}
    with pytest.raises(DataError, match="rows without an id: 1 items"):
        encoded(config.model_copy(update={"on_error": "stop"}))


def test_bytes_that_are_no_utf8(tmp_path: Path) -> None:
    path = tmp_path / "items.parquet"
    pl.DataFrame({"item": [1, 2], "title": ["caf\u00e9".encode("latin-1"), b"ok"]}).write_parquet(path)
    items = encoded(ContentConfig(content=str(path), id="item", text="title", cache=tmp_path / "cache"))
    assert items.faults.counts["text: not UTF-8"] == 1
    assert by_id(items) == {1: None, 2: [2.0, 0.0]}


def test_several_columns_are_joined(tmp_path: Path) -> None:
    path = tmp_path / "items.parquet"
    pl.DataFrame({"item": [1, 2], "title": ["ab", "c"], "plot": ["x", None]}).write_parquet(path)
    config = ContentConfig(content=str(path), id="item", text=["title", "plot"], cache=tmp_path / "cache")
    assert by_id(encoded(config)) == {1: [5.0, 1.0], 2: [1.0, 0.0]}  # "ab. x" and "c"


def test_settings_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"title: columns of content are named, but not content \(the file"):
        encoded(ContentConfig(id="item", text="title"))
    with pytest.raises(DataError, match="there is no column 'titel'; did you mean 'title'"):
        encoded(write_items(tmp_path, {1: "a"}).model_copy(update={"text": ContentConfig(text="titel").text}))
    with pytest.raises(ValueError, match="no content is named"):
        ContentConfig(content="x.csv")
    with pytest.raises(ValueError, match=r"vectors\.text: the name is kept"):
        ContentConfig(vectors={"text": "x.npy"})


def test_a_cache_that_is_not_whole_is_told(tmp_path: Path) -> None:
    config = write_items(tmp_path, {1: "a"})
    encoded(config)
    (vectors,) = (tmp_path / "cache").glob("*/*.vectors.npy")
    vectors.unlink()
    with pytest.raises(DataError, match=r"vectors\.npy is not whole; remove .*digests\.npy"):
        encoded(write_items(tmp_path, {1: "a", 2: "b"}))


def test_given_vectors_beside_content_cover_all_items_of_both(tmp_path: Path) -> None:
    config = write_items(tmp_path, {1: "a", 3: "b"})
    path = tmp_path / "clip.parquet"
    pl.DataFrame({"item": [2, 3], "v": [[1.0, 2.0], [3.0, 4.0]]}).write_parquet(path)
    both = ContentConfig.model_validate(config.model_dump() | {"vectors": {"clip": path}})
    items = encoded(both)
    assert by_id(items) == {1: [1.0, 1.0], 2: None, 3: [1.0, 0.0]}
    assert by_id(items, "clip") == {1: None, 2: [1.0, 2.0], 3: [3.0, 4.0]}
    assert dict(items.faults.counts) == {"clip: ids without a vector": 1}
