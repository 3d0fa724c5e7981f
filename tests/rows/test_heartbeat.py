"""A process that works alone is waited for as long as it lives, and named once it does not."""

import logging
import multiprocessing as mp
import os
import signal
import socket
import threading
import time
from typing import Any

import pytest
import torch.distributed as dist

from recembed.rows.heartbeat import beating, wait_while_it_beats
from recembed.rows.process_group import ProcessGroup


class Book:
    """Notes in one process."""

    def __init__(self) -> None:
        self.notes: dict[str, bytes] = {}

    def set(self, key: str, value: str) -> None:
        self.notes[key] = value.encode()

    def get(self, key: str) -> bytes:
        return self.notes[key]

    def check(self, keys: list[str]) -> bool:
        return all(key in self.notes for key in keys)


def test_who_beats_is_waited_for_longer_than_the_timeout(caplog: pytest.LogCaptureFixture) -> None:
    book = Book()

    def work() -> None:
        with beating(book, "work", seconds=0.05):
            time.sleep(1.2)

    worker = threading.Thread(target=work)
    worker.start()
    began = time.monotonic()
    with caplog.at_level(logging.WARNING):
        wait_while_it_beats(book, "work", timeout=0.5, who="rank 0 (here)")
    assert time.monotonic() - began > 1
    worker.join()
    assert caplog.messages[0].startswith("rank 0 (here) has been at work alone for 1 seconds, and is alive")


def test_who_does_not_beat_is_given_up() -> None:
    began = time.monotonic()
    with pytest.raises(TimeoutError, match=r"rank 0 \(here\) has given no sign of life for 0.3 seconds"):
        wait_while_it_beats(Book(), "work", timeout=0.3, who="rank 0 (here)")
    assert time.monotonic() - began > 0.3


def test_the_end_is_noted_also_after_an_error() -> None:
    book = Book()
    with pytest.raises(ValueError, match="no"), beating(book, "work", seconds=60):
        raise ValueError("no")
    wait_while_it_beats(book, "work", timeout=0.1, who="rank 0")


def stop_at_work(rank: int, port: int, answers: Any) -> None:
    store = dist.TCPStore("127.0.0.1", port)
    processes = ProcessGroup.start(store, rank, 2, timeout=3.0)
    try:
        processes.first_does(lambda: os.kill(os.getpid(), signal.SIGSTOP))
    except Exception as error:
        answers.put((rank, f"{type(error).__name__}: {error}"))


def test_a_rank_0_that_is_stopped_at_its_work_is_named() -> None:
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # outlives rank 0, as torchrun's does
    context = mp.get_context("spawn")
    answers = context.Queue()
    started = [context.Process(target=stop_at_work, args=(rank, store.port, answers)) for rank in range(2)]
    for process in started:
        process.start()
    try:
        assert answers.get(timeout=100) == (
            1,
            f"TrainingError: rank 1 waited in vain for the work of rank 0: rank 0 ({socket.gethostname()}) "
            "has given no sign of life for 3 seconds; look at its log",
        )
    finally:
        for process in started:
            process.kill()
            process.join()
