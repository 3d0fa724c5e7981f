"""What a step costs on many machines, on paper: bytes per link, time, efficiency, for a table of any size.

    python examples/scale/scaling_model.py --table-tb 1 --width 128 --batch 8192

The bytes are those that recembed's exchange sends (a test counts them on two processes); the speeds of links and memory
are those of the machine you name. Every process reads its slice of the global batch, sends each unique address once to the
process that holds its row, gets the row back and sends a gradient there; dense gradients are summed over all.
"""

import argparse
from dataclasses import dataclass


@dataclass(frozen=True)
class Machine:
    """Eight H100 (80 GB) a machine on NVLink, and a 400 Gbit/s network card for each; bytes/s one way, achieved."""

    gpus: int = 8
    memory: float = 80e9 * 0.85  # what the framework leaves
    hbm: float = 3.35e12 * 0.6
    nvlink: float = 450e9 * 0.7
    network: float = 50e9 * 0.8
    flops: float = 400e12 * 0.4  # bf16, matrices of a CTR model
    message: float = 15e-6  # seconds until the first byte of a collective, for every doubling of processes
    kernels: float = 1.5e-3  # launches and the host's work of a step, which no size makes smaller


@dataclass(frozen=True)
class Job:
    """Rows of float32 spread by row; row-wise Adagrad keeps one number a row; a batch is that of one process."""

    table_bytes: float = 1e12
    width: int = 128
    features: int = 26
    batch: int = 8192
    unique: float = 0.19  # distinct ids in a batch by all: 0.227 at 4,096 rows, 0.155 at 16,384 (a Criteo sample)
    dense: int = 3_000_000  # parameters

    @property
    def addresses(self) -> float:
        """Unique rows that a process fetches in a step."""
        return self.batch * self.features * self.unique


def lookup_bytes(addresses: float, width: int, processes: int) -> float:
    """Return what a process sends in a step for rows held elsewhere: 8 bytes out, a row back, a gradient out.

    It answers as many as it asks, on the average.
    """
    return addresses * (processes - 1) / processes * (8 + 4 * width + 4 * width)


def dense_bytes(parameters: int, processes: int) -> float:
    """Return what a process sends to sum float32 gradients of all, around a ring."""
    return 2 * (processes - 1) / processes * 4 * parameters


def seconds(job: Job, machine: Machine, processes: int) -> dict[str, float]:
    """Return where the time of a step goes."""
    near = (min(processes, machine.gpus) - 1) / max(processes - 1, 1)  # of the others, those on this machine
    sent = lookup_bytes(job.addresses, job.width, processes)
    rounds = 4 * max(processes - 1, 0).bit_length()  # sizes, addresses, rows, gradients
    link = machine.nvlink if processes <= machine.gpus else machine.network
    lookup = max(sent * near / machine.nvlink, sent * (1 - near) / machine.network)
    memory = job.addresses * 4 * job.width * 6 / machine.hbm  # rows: read, sent; gradients: summed; rows: read, written
    return {
        "compute": 6 * job.dense * job.batch / machine.flops + memory + machine.kernels,
        "rows": lookup,
        "dense": dense_bytes(job.dense, processes) / link,
        "messages": (rounds + max(processes - 1, 0).bit_length()) * machine.message if processes > 1 else 0.0,
    }


def report(job: Job, machine: Machine, counts: list[int]) -> list[str]:
    """Return a line for each number of processes; efficiency is time of compute over time of the step."""
    held = job.table_bytes * (1 + 1 / job.width)
    lines = [
        "processes  GB of rows each  fits  MB sent (rows, dense)  ms (compute, rows, dense, messages)  efficiency  rows/s"
    ]
    for count in counts:
        spent = seconds(job, machine, count)
        step, each = sum(spent.values()), held / count
        rows, dense = lookup_bytes(job.addresses, job.width, count), dense_bytes(job.dense, count)
        ms = ", ".join(f"{1e3 * value:.2f}" for value in spent.values())
        lines.append(
            f"{count:>9}  {each / 1e9:>15.1f}  {'yes' if each < machine.memory else 'no':<4}"
            f"  {rows / 1e6:>11.1f}, {dense / 1e6:<8.1f}  {ms:<35}  {spent['compute'] / step:>10.0%}"
            f"  {count * job.batch / step:,.0f}"
        )
    return lines


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table-tb", type=float, default=1.0)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--batch", type=int, default=8192, help="of one process")
    given = parser.parse_args()
    job = Job(table_bytes=given.table_tb * 1e12, width=given.width, batch=given.batch)
    print("\n".join(report(job, Machine(), [8, 64, 512])))
