"""How much memory is left for rows, so that tables that cannot fit are refused before they are allocated."""

import socket
from pathlib import Path

import torch

from recembed.errors import ConfigError
from recembed.rows.processes import Processes
from recembed.rows.shard import readable

__all__ = ["available_memory", "beyond_gpu", "check_memory"]

_LIMITS = (  # of a container: limit and use, by the two versions of control groups
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def available_memory(device: torch.device | str = "cpu") -> int | None:
    """Return the bytes that are free on ``device``: memory, swap left out, within the limit of a container; None if unknown."""
    device = torch.device(device)
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
        free = next(int(words[1]) * 1024 for words in lines if words[0] == "MemAvailable:")
    except (OSError, StopIteration):
        return None
    for limit, use in _LIMITS:
        try:
            free = min(free, int(Path(limit).read_text()) - int(Path(use).read_text()))
        except (OSError, ValueError):  # no such limit, or "max"
            continue
    return max(free, 0)


def beyond_gpu(needed: int, device: torch.device | str) -> bool:
    """Return whether ``device`` is a GPU with fewer bytes free."""
    free = available_memory(device) if torch.device(device).type == "cuda" else None
    return free is not None and needed > free


def check_memory(needed: int, whole: int, processes: Processes, device: torch.device | str = "cpu") -> None:
    """Refuse rows that do not fit; the processes of one machine share its memory.

    Args:
        needed: Bytes of rows and optimiser rows in this process.
        whole: Bytes of all tables.
        processes: All of them call it.
        device: Where the rows are to live.

    Raises:
        ConfigError: names the bytes that are needed and those that are there.
    """
    host = socket.gethostname() if torch.device(device).type == "cpu" else f"{socket.gethostname()} {device}"
    words = processes.tell((host, needed, available_memory(device)))
    free = {host: left for host, _, left in words if left is not None}
    for host, left in free.items():
        here = sum(bytes_ for other, bytes_, _ in words if other == host)
        if here > left:
            total = sum(free.values())
            fix = "start more machines" if whole > total else "spread the tables otherwise (--plan)"
            raise ConfigError(
                f"the tables take {readable(whole)} with optimiser rows, {readable(here)} of it on {host}, where "
                f"{readable(left)} of memory are free ({readable(total)} on all {len(free)} machines): {fix}, "
                "or shrink the tables (embeddings.table, embedding_dim)"
            )
