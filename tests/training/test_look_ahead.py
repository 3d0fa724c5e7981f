"""Batches with the next one begun: what happens when, where the data stand, and on a GPU which stream waits for which."""

import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from recembed.batch import Batch
from recembed.data import Loader
from recembed.rows import Processes
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
        self.told, self.made, self.last = told, list[weakref.ref[Begun]](), list[Batch]()

    def start_sparse_data_dist(self, batch: Batch) -> object:
        self.told.append(f"start {len(self.made)}")
        begun = Begun()
        self.made.append(weakref.ref(begun))
        return begun

    def wait_sparse_data_dist(self) -> None:
        self.told.append("wait")

    def drop_sparse_data_dist(self) -> None:
        self.told.append("drop")

    def embedded(self, batch: Batch) -> bool:
        return any(batch is last for last in self.last)

    def forward(self, batch: Batch) -> None:
        self.last = [batch]


class Two(Processes):
    count = 2


def test_the_next_lookup_begins_before_a_batch_is_handed_out() -> None:
    told = list[str]()
    batches, model = train(), Watched(told)
    ahead = LookAhead(model, batches, CPU, Two())
    steps = 0
    for batch in ahead:
        told.append(f"step {steps}")
        model(batch)
        ahead.wait()
        steps += 1
        assert ahead.position()["step"] == steps
    assert steps == len(batches) >= 4
    # the first step shows that the model embeds the batches themselves: the third lookup is the first to begin early
    assert told[:7] == ["step 0", "wait", "start 0", "step 1", "wait", "start 1", "step 2"]
    assert told[-5:] == [f"step {steps - 2}", "wait", f"step {steps - 1}", "wait", "drop"]
    assert len(model.made) == steps - 2


def test_nothing_begins_for_a_model_that_embeds_other_batches() -> None:
    told = list[str]()
    model = Watched(told)
    for batch in LookAhead(model, train(), CPU, Two()):
        model(replace(batch))
    assert told == ["drop"]


def test_one_process_on_cpu_asks_for_a_batch_when_the_step_before_it_is_over() -> None:
    asked = list[int]()

    class Asked(Loader):
        def __iter__(self) -> Iterator[Batch]:
            for number, batch in enumerate(super().__iter__()):
                asked.append(number)
                yield batch

    told = list[str]()
    model = Watched(told)
    ahead = LookAhead(model, Asked(planted()[1], 700, shuffle=True, seed=0), CPU, Processes())
    for step, batch in enumerate(ahead):
        model(batch)
        assert asked[-1] == step
        assert ahead.position()["step"] == step + 1
    assert told == ["drop"]


def test_data_resumed_from_a_position_go_on_with_the_batch_after_it() -> None:
    def rows(batches: Any) -> list[list[float]]:
        return [batch.numeric.flatten().tolist() for batch in batches]

    whole = rows(train())
    cut = LookAhead(nn.Linear(1, 1), train(), CPU, Two())
    assert cut.position()["step"] == 0
    running = iter(cut)
    seen = rows([next(running), next(running)])
    again = train()
    again.resume(cut.position())
    assert seen + rows(LookAhead(nn.Linear(1, 1), again, CPU, Two())) == whole


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
    ahead = LookAhead(model, train(), torch.device("cuda:0"), Processes())
    for step, batch in enumerate(ahead):
        told.append(f"step {step}")
        model(batch)
        ahead.wait()
        gc.collect()
        alive = [number for number, begun in enumerate(model.made) if begun() is not None]
        assert alive == [
            n for n in range(len(model.made)) if n + 2 >= step - 1
        ]  # its own, the next, and the one before
    begin = ["into side", "copied to cuda:0", "out of side"]
    wait = ["into side", "wait", "out of side"]
    assert told[: told.index("step 3")] == [
        *["side waits for main", *begin, "main waits for side", *begin, "step 0", *wait],
        *["main waits for side", *begin[:-1], "start 0", begin[-1], "step 1", *wait],
        *["side waits for step 0", "main waits for side", *begin[:-1], "start 1", begin[-1], "step 2", *wait],
        *["side waits for step 1", "main waits for side", *begin[:-1], "start 2", begin[-1]],
    ]
