"""Batches with the next one begun: what happens when, where the data stand, and on a GPU which stream waits for which."""

import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import nn

from recembed.batch import Batch
from recembed.data import Loader
from recembed.training.look_ahead import LookAhead
from tests.training.planted import planted

CPU = torch.device("cpu")


def train() -> Loader:
    """Return eight batches."""
    return Loader(planted()[1], 700, shuffle=True, seed=0)


class Begun:
    """What a lookup that was begun holds."""


class Watched(nn.Module):
    """Notes which batch's lookup is begun, by the first row of the batch."""

    def __init__(self, told: list[str]) -> None:
        super().__init__()
        self.told, self.made = told, list[weakref.ref[Begun]]()

    def start_sparse_data_dist(self, batch: Batch) -> object:
        self.told.append(f"start {len(self.made)}")
        begun = Begun()
        self.made.append(weakref.ref(begun))
        return begun

    def wait_sparse_data_dist(self) -> None:
        self.told.append("wait")


def test_the_next_lookup_begins_before_a_batch_is_handed_out() -> None:
    told = list[str]()
    batches = train()
    ahead = LookAhead(Watched(told), batches, CPU)
    steps = 0
    for _ in ahead:
        told.append(f"step {steps}")
        ahead.wait()
        steps += 1
        assert ahead.position()["step"] == steps
    assert steps == len(batches) >= 3
    last = steps - 1
    assert told[:6] == ["start 0", "start 1", "step 0", "wait", "start 2", "step 1"]
    assert told[-3:] == ["wait", f"step {last}", "wait"]
    assert told.count("wait") == steps


def test_data_resumed_from_a_position_go_on_with_the_batch_after_it() -> None:
    def rows(batches: Any) -> list[list[float]]:
        return [batch.numeric.flatten().tolist() for batch in batches]

    whole = rows(train())
    cut = LookAhead(nn.Linear(1, 1), train(), CPU)
    assert cut.position()["step"] == 0
    running = iter(cut)
    seen = rows([next(running), next(running)])
    again = train()
    again.resume(cut.position())
    assert seen + rows(LookAhead(nn.Linear(1, 1), again, CPU)) == whole


class PlayedStream:
    """A stream that notes what waits for what."""

    def __init__(self, name: str, told: list[str]) -> None:
        self.name, self.told = name, told

    def wait_stream(self, other: "PlayedStream") -> None:
        self.told.append(f"{self.name} waits for {other.name}")

    def wait_event(self, event: "PlayedEvent") -> None:
        self.told.append(f"{self.name} waits for step {event.step}")


class PlayedEvent:
    """Notes after which step it was recorded."""

    step = -1

    def record(self, stream: PlayedStream) -> None:
        assert stream.name == "main"
        self.step = sum(word.startswith("step") for word in stream.told) - 1


def test_on_a_gpu_a_stream_of_its_own_begins_and_what_it_made_outlives_the_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = list[str]()
    side, main = PlayedStream("side", told), PlayedStream("main", told)

    @contextmanager
    def within(stream: PlayedStream) -> Iterator[None]:
        told.append(f"into {stream.name}")
        yield
        told.append(f"out of {stream.name}")

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: side)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: main)
    monkeypatch.setattr(torch.cuda, "stream", within)
    monkeypatch.setattr(torch.cuda, "Event", PlayedEvent)

    def copied(batch: Batch, device: torch.device) -> Batch:
        told.append(f"copied to {device}")
        return batch

    monkeypatch.setattr(Batch, "to", copied)
    model = Watched(told)
    ahead = LookAhead(model, train(), torch.device("cuda:0"))
    for step, _ in enumerate(ahead):
        told.append(f"step {step}")
        ahead.wait()
        gc.collect()
        alive = [number for number, begun in enumerate(model.made) if begun() is not None]
        assert alive == [n for n in range(len(model.made)) if n >= step - 1]  # its own, the next, and the one before
    begin = ["into side", "copied to cuda:0", "start {}", "out of side"]
    first, second, third = ([word.format(number) for word in begin] for number in range(3))
    wait = ["into side", "wait", "out of side"]
    assert told[: len(told) - told[::-1].index("step 2")] == [
        *[*first, "main waits for side", *second, "step 0", *wait],
        *["main waits for side", *third, "step 1", *wait],
        *["side waits for step 0", "main waits for side"],
        *[word.format(3) for word in begin if len(model.made) > 3],
        "step 2",
    ]
