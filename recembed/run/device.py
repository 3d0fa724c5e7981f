"""Which device a process trains on, and over what the processes talk."""

import os
from typing import Literal

import torch

from recembed.errors import ConfigError

__all__ = ["backend_of", "choose_device"]


def choose_device(wanted: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """Return the device of this process: the GPU of its rank on its machine (``LOCAL_RANK``), or the CPU.

    Args:
        wanted: ``training.device``; ``auto`` takes GPUs where torch sees any.

    Raises:
        ConfigError: CUDA is asked for and is not there, or a machine has fewer GPUs than processes.

    >>> choose_device("cpu")
    device(type='cpu')
    """
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        why = "sees no GPU" if torch.version.cuda else "has no CUDA"
        raise ConfigError(
            f"training.device = 'cuda': this torch ({torch.__version__}) {why}; 'recembed doctor' says what fits, or set it to "
            "'cpu' or 'auto'"
        )
    place, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if place >= count:
        raise ConfigError(
            f"training.device = {wanted!r}: process {place} of this machine finds {count} GPUs; start at most {count} processes a "
            "machine (--nproc, torchrun --nproc-per-node), or set it to 'cpu'"
        )
    device = torch.device("cuda", place)
    torch.cuda.set_device(device)
    return device


def backend_of(device: torch.device) -> str:
    """Return the backends of ``torch.distributed``: gloo for what lies in memory, NCCL for what lies on GPUs.

    >>> backend_of(torch.device("cpu")), backend_of(torch.device("cuda", 1))
    ('gloo', 'cpu:gloo,cuda:nccl')
    """
    return "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
