"""Several processes for one run: ``--nproc`` starts them here, torchrun and its kind start them anywhere."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from types import FrameType

import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from recembed.errors import ConfigError, TrainingError
from recembed.rows import Processes

__all__ = ["joined", "launch", "restarted"]

_LOCALHOST = "127.0.0.1"
_GRACE_SECONDS = 40.0
"""What processes get to end by themselves after one of them failed."""


def restarted() -> bool:
    """Return whether torchrun started this run again after a failure."""
    return _restarts() > 0


def _restarts() -> int:
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


@contextmanager
def joined(timeout: float = 600.0, backend: str = "gloo") -> Iterator[Processes]:
    """Give the processes that were started together with this one; a single one where there are no others.

    Args:
        timeout: Seconds after which a process that does not answer is given up.
        backend: What ``torch.distributed`` sends by; see ``recembed.run.device``.

    Raises:
        TrainingError: they do not find each other, or the port is taken.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        yield Processes()
        return
    from recembed.rows.process_group import ProcessGroup

    place = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
    try:
        store, rank, count = next(rendezvous("env://", timeout=timedelta(seconds=timeout)))
        # torchrun's store outlives those it starts again
        own = dist.PrefixStore(f"recembed/{_restarts()}", store)  # type: ignore[attr-defined]
        processes = ProcessGroup.start(own, rank, count, backend, timeout)
    except (ValueError, RuntimeError) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise TrainingError(
            f"rank {os.environ['RANK']} of {os.environ['WORLD_SIZE']} could not meet the others at {place} ({said}); "
            "where that port is in use, name another one as MASTER_PORT (torchrun: --master-port or --rdzv-endpoint)"
        ) from error
    yield processes  # after an error the connections are left as they are: to end them in order, others must answer
    dist.destroy_process_group()


def launch(arguments: Sequence[str], count: int) -> int:
    """Run ``python -m recembed ARGUMENTS`` in ``count`` processes on this machine; return the exit code for all.

    Ctrl-C and SIGTERM go to all of them: they save, and stop. Where one fails the others end too.

    Raises:
        ConfigError: ``count`` is not at least 1.
    """
    if count < 1:
        raise ConfigError(f"--nproc {count}: expected at least 1 process")
    # it outlives rank 0, and names it
    meeting = dist.TCPStore(_LOCALHOST, 0, is_master=True, wait_for_workers=False)  # type: ignore[attr-defined]
    children = [
        subprocess.Popen(
            [sys.executable, "-m", "recembed", *arguments],
            env={**os.environ, **_environment(rank, count, meeting.port)},
            stdout=None if rank == 0 else subprocess.DEVNULL,
        )
        for rank in range(count)
    ]
    with _forwarded(children):
        return _wait(children)


def _environment(rank: int, count: int, port: int) -> Mapping[str, str]:
    threads = max((os.cpu_count() or 1) // count, 1)
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": _LOCALHOST,
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads)),
    }


@contextmanager
def _forwarded(children: Sequence[subprocess.Popen[bytes]]) -> Iterator[None]:
    """Hand SIGTERM on; Ctrl-C reaches the children by itself, and this process waits for them."""

    def forward(number: int, frame: FrameType | None) -> None:
        for child in children:
            if child.poll() is None:
                child.send_signal(number)

    before = signal.signal(signal.SIGTERM, forward), signal.signal(signal.SIGINT, lambda *_: None)
    try:
        yield
    finally:
        for child in children:
            if child.poll() is None:
                child.kill()
            child.wait()
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGINT, before[1])


def _wait(children: Sequence[subprocess.Popen[bytes]]) -> int:
    """Wait for all; after a failure only as long as the others need to notice it."""
    failed: int | None = None
    end = float("inf")
    while None in (codes := [child.poll() for child in children]) and time.monotonic() < end:
        if failed is None and any(codes):
            failed = next(rank for rank, code in enumerate(codes) if code)
            end = time.monotonic() + _GRACE_SECONDS
        time.sleep(0.05)
    failed = next((rank for rank, code in enumerate(codes) if code), None) if failed is None else failed
    if failed is None:
        return 0
    code = codes[failed] or 0
    if code < 0:
        raise TrainingError(
            f"rank {failed} was ended by {signal.Signals(-code).name}; go on from the last checkpoint with --resume "
            "(out of memory, if nobody else did it)"
        )
    return int(code)
