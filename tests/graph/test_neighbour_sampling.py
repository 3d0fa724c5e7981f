"""Sampled neighbourhoods against the propagation of the whole graph."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from recembed.errors import ConfigError
from recembed.graph import Adjacency, GivenVectors, LightGCN, NeighbourSampler
from tests.graph.test_propagation import random_graph


def full(base: torch.Tensor, layers: int) -> torch.Tensor:
    return torch.cat(LightGCN(random_graph(), 4, layers, base=GivenVectors(base))())


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_all_neighbours_give_the_full_propagation(layers: int) -> None:
    base, asked = torch.randn(21, 4), torch.tensor([13, 0, 11, 7])  # node 11 has no edge
    hops = NeighbourSampler.of(Adjacency(random_graph()), (None,) * layers).sample(asked)
    assert hops.nodes[:4].tolist() == asked.tolist() and len(hops.nodes.unique()) == len(hops.nodes)
    torch.testing.assert_close(hops.mean_of_layers(base[hops.nodes]), full(base, layers)[asked])


def test_so_does_a_fan_out_above_every_degree() -> None:
    base, asked = torch.randn(21, 4), torch.arange(21)
    hops = NeighbourSampler.of(Adjacency(random_graph()), (50, 50)).sample(asked)
    torch.testing.assert_close(hops.mean_of_layers(base[hops.nodes]), full(base, 2))


def test_sampled_vectors_are_the_full_ones_on_average() -> None:
    base, asked, draws = torch.randn(21, 4), torch.tensor([0, 14]), 600
    sampler = NeighbourSampler.of(Adjacency(random_graph()), (2, 2), seed=1)
    samples = []
    for _ in range(draws):
        hops = sampler.sample(asked)
        samples.append(hops.mean_of_layers(base[hops.nodes]))
    mean, spread = torch.stack(samples).mean(0), torch.stack(samples).std(0)
    assert spread.min() > 0
    assert ((mean - full(base, 2)[asked]).abs() < 4.5 * spread / draws**0.5).all()


def test_the_gradient_reaches_the_rows_that_were_read() -> None:
    base = torch.randn(21, 4, requires_grad=True)
    hops = NeighbourSampler.of(Adjacency(random_graph()), (None, None)).sample(torch.tensor([0]))
    hops.mean_of_layers(base[hops.nodes]).sum().backward()
    other = base.detach().clone().requires_grad_()
    whole = Adjacency(random_graph())
    total = (other + whole(other) + whole(whole(other))) / 3
    total[0].sum().backward()
    torch.testing.assert_close(base.grad, other.grad)


def test_a_matrix_on_disk_is_touched_where_it_is_asked(tmp_path: Path) -> None:
    """The arrays may be larger than memory: only the rows of the neighbourhood are read."""
    adjacency = Adjacency(random_graph())
    arrays = []
    for name in ("pointers", "neighbours", "weights"):
        np.save(tmp_path / f"{name}.npy", getattr(adjacency, name).numpy())
        arrays.append(np.load(tmp_path / f"{name}.npy", mmap_mode="r"))
    base, asked = torch.randn(21, 4), torch.tensor([3, 15])
    hops = NeighbourSampler(arrays[0], arrays[1], arrays[2], (None, None)).sample(asked)
    torch.testing.assert_close(hops.mean_of_layers(base[hops.nodes]), full(base, 2)[asked])


_LARGE = """
import resource, sys, numpy as np, torch
from pathlib import Path
from recembed.graph import NeighbourSampler
folder = Path(sys.argv[1])
arrays = [np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("pointers", "neighbours", "weights")]
held = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmData"))
most = 1024 * held + 2**28
resource.setrlimit(resource.RLIMIT_DATA, (most, most))
hops = NeighbourSampler(*arrays, (5, 5)).sample(torch.tensor([3, 500]))
print(hops.nodes.tolist(), tuple(hops.mean_of_layers(torch.ones(len(hops.nodes), 2)).shape))
try:
    np.array(arrays[1])
except MemoryError:
    print("larger than memory")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of memory is Linux's")
def test_a_graph_larger_than_memory(tmp_path: Path) -> None:
    """A gibibyte of neighbours (a file of holes: all are node 0) in a process that may take a quarter of that."""
    nodes, degree = 1024, 1 << 18
    np.save(tmp_path / "pointers.npy", np.arange(nodes + 1, dtype=np.int64) * degree)
    for name, kind in (("neighbours", np.int32), ("weights", np.float32)):
        np.lib.format.open_memmap(tmp_path / f"{name}.npy", mode="w+", dtype=kind, shape=(nodes * degree,))
    done = subprocess.run(
        [sys.executable, "-c", _LARGE, str(tmp_path)], capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )
    assert done.stdout.splitlines() == ["[3, 500, 0] (2, 2)", "larger than memory"], done.stderr


def test_a_fan_out_of_none_at_all_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"fan_outs = \(3, 0\): expected at least 1 neighbour"):
        NeighbourSampler.of(Adjacency(random_graph()), (3, 0))
