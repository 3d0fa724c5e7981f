import threading
from pathlib import Path

import polars as pl
import pytest

from recembed.training.metric_buffer import MetricBuffer, Point
from recembed.training.tracking import MemoryTracker, NullTracker, Tracker, flatten


def report(tracker: Tracker) -> None:
    tracker.start("first", {"model": {"kind": "fm", "hidden": [4, 2]}, "seed": 1}, {"stage": "train"})
    tracker.dataset("clicks", digest="ab" * 32, rows=7, source="clicks.parquet")
    tracker.log({"loss": 0.5, "auc": 0.75}, step=1)
    tracker.log({"loss": 0.25}, step=2)
    tracker.table("vocabulary", pl.DataFrame({"feature": ["city"], "known": [3]}))
    tracker.artifact(Path("config.yaml"))
    tracker.model(Path("bundle"))
    tracker.end(ok=True)


def test_memory_tracker_keeps_all_it_is_told() -> None:
    tracker = MemoryTracker()
    report(tracker)
    assert tracker.run_name == "first"
    assert tracker.params == {"model.kind": "fm", "model.hidden": "[4, 2]", "seed": "1"}
    assert tracker.tags == {"stage": "train"}
    assert tracker.datasets == [{"name": "clicks", "digest": "ab" * 32, "rows": 7, "source": "clicks.parquet"}]
    assert tracker.metrics == [(1, "loss", 0.5), (1, "auc", 0.75), (2, "loss", 0.25)]
    assert tracker.values("loss") == [0.5, 0.25]
    assert tracker.tables["vocabulary"]["known"].to_list() == [3]
    assert tracker.artifacts == [Path("config.yaml")]
    assert tracker.models == [(Path("bundle"), None)]
    assert tracker.ok is True


def test_children_are_kept_with_what_they_are_told() -> None:
    tracker = MemoryTracker()
    report(tracker.child())
    assert [child.run_name for child in tracker.children] == ["first"]
    assert (tracker.run_name, tracker.ok, tracker.children[0].ok) == ("", None, True)


def test_the_first_end_counts() -> None:
    tracker = MemoryTracker()
    tracker.end(ok=False)
    tracker.end(ok=True)
    assert tracker.ok is False


def test_null_tracker_takes_the_same_calls() -> None:
    tracker = NullTracker()
    report(tracker)
    report(tracker.child(resume="earlier"))
    assert (tracker.url, tracker.run_id) == ("", None)


def test_flatten_keeps_empty_parts_and_lists_of_records() -> None:
    nested = {"model": {}, "features": [{"name": "city", "path": Path("a")}], "rate": 0.1, "wide": {"on": True}}
    assert flatten(nested) == {
        "model": "{}",
        "features": '[{"name": "city", "path": "a"}]',
        "rate": "0.1",
        "wide.on": "True",
    }


def test_flatten_cuts_to_the_limit() -> None:
    text = flatten({"long": "x" * 7000})["long"]
    assert len(text) == 6000
    assert text.endswith("x…")


def test_buffer_sends_when_full_and_in_order() -> None:
    sent: list[list[Point]] = []
    buffer = MetricBuffer(sent.append, most=2, seconds=1000)
    for step in range(3):
        buffer.add("loss", float(step), step)
    buffer.close()
    assert [[point.step for point in batch] for batch in sent] == [[0, 1], [2]]


def test_buffer_sends_what_is_old() -> None:
    sent = threading.Event()
    buffer = MetricBuffer(lambda points: sent.set(), most=1000, seconds=0.0)
    buffer.add("loss", 1.0, 1)
    assert sent.wait(timeout=10)  # without a flush
    buffer.close()


def test_buffer_takes_points_while_a_batch_is_under_way() -> None:
    go_on = threading.Event()
    sent: list[list[int]] = []

    def slow(points: list[Point]) -> None:
        go_on.wait(timeout=10)
        sent.append([point.step for point in points])

    buffer = MetricBuffer(slow, most=1, seconds=1000)
    for step in range(3):
        buffer.add("loss", 1.0, step)
    assert sent == []
    go_on.set()
    buffer.close()
    assert sent == [[0], [1, 2]]


def test_buffer_tells_of_a_failed_batch_once() -> None:
    def refuse(points: list[Point]) -> None:
        raise OSError(f"no room for {len(points)}")

    buffer = MetricBuffer(refuse, most=1, seconds=1000)
    buffer.add("loss", 1.0, 1)
    with pytest.raises(OSError, match="no room for 1"):
        buffer.flush()
    buffer.abandon()
    with pytest.raises(RuntimeError, match="shutdown"):
        buffer.add("loss", 1.0, 2)
