"""Runs a function in two processes over gloo; what it says comes back, and so does what goes wrong."""

import queue
import socket
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from recembed.rows.process_group import ProcessGroup


def run(work: Callable[..., Any], *arguments: Any, timeout: float = 60.0, wait: float = 500.0) -> list[Any]:
    """Return what ``work(processes, *arguments)`` returned on rank 0 and on rank 1, or the text of its error."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = mp.get_context("spawn")
    answers = context.Queue()
    started = [
        context.Process(target=_child, args=(rank, port, timeout, answers, work, arguments), daemon=True)
        for rank in (1, 0)
    ]
    for process in started:
        process.start()
    said: dict[int, Any] = {}
    try:
        while len(said) < 2:
            rank, answer = answers.get(timeout=wait)
            said[rank] = answer
    except queue.Empty:
        raise AssertionError(f"only ranks {sorted(said)} came back") from None
    finally:
        for process in started:
            process.kill()
            process.join()
    return [said[0], said[1]]


def _child(rank: int, port: int, timeout: float, answers: Any, work: Callable[..., Any], arguments: Any) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    store = dist.TCPStore("127.0.0.1", port, 2, rank == 0)
    try:
        answers.put((rank, work(ProcessGroup.start(store, rank, 2, timeout=timeout), *arguments)))
    except Exception as error:
        answers.put((rank, f"{type(error).__name__}: {error}\n{traceback.format_exc()}"))
    import time

    time.sleep(30)  # the parent ends it; rank 0 holds the notes of all
