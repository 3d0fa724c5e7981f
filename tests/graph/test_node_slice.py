"""Propagation spread over two processes: the vectors, losses and gradients of one."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from recembed.graph import NGCF, GivenVectors, GraphEncoder, LightGCN
from recembed.graph.node_slice import NodeSlice
from recembed.graph.propagated import Propagated
from recembed.rows import Piece
from recembed.rows.process_group import ProcessGroup
from recembed.rows.processes import Processes
from recembed.training.gradients import gradient_norm, sum_gradients
from tests.graph.test_propagation import random_graph
from tests.rows.two_processes import run as in_two

GRAPH = random_graph(weighted=True)  # 12 users, 9 items
NODES = torch.tensor([0, 3, 3, 20, 12, 11, 5])
"""What the rows of the global batch read: the first process has five of them, the second two."""


def lightgcn() -> GraphEncoder:
    return LightGCN(GRAPH, 4, layers=2)


def matrix_factorisation() -> GraphEncoder:
    return LightGCN(GRAPH, 4, layers=0)


def ngcf_of_the_code() -> GraphEncoder:
    return NGCF(GRAPH, 4, layers=[3, 2], message_dropout=0)


def ngcf_of_the_paper() -> GraphEncoder:
    return NGCF(GRAPH, 4, layers=[3, 2], form="paper", message_dropout=0)


def over_given_vectors() -> GraphEncoder:
    vectors = torch.randn(GRAPH.num_nodes, 6, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    return LightGCN(GRAPH, 4, layers=2, base=GivenVectors(vectors, 4))


ENCODERS = [lightgcn, matrix_factorisation, ngcf_of_the_code, ngcf_of_the_paper, over_given_vectors]


def loss_of(vectors: Tensor, nodes: Tensor) -> Tensor:
    target = torch.arange(1.0, vectors.shape[1] + 1)
    return ((vectors[nodes] * target).sum(1) - 1).square().mean()


def gradients_in(encoder: GraphEncoder) -> dict[str, Tensor]:
    return {name: parameter.grad for name, parameter in encoder.named_parameters() if parameter.grad is not None}


def step(processes: ProcessGroup, name: str) -> dict[str, Any]:
    """Return this process's part of one step, and of one with half the edges left out."""
    encoder = next(make for make in ENCODERS if make.__name__ == name)()
    Propagated(encoder).join(processes)
    own = NODES[:5] if processes.rank == 0 else NODES[5:]
    processes.share = len(own) / len(NODES)
    vectors = encoder.propagate()
    loss_of(vectors, own).backward()  # type: ignore[no-untyped-call]
    sum_gradients(processes, list(encoder.parameters()))
    pieces = {name: Piece.of(parameter) for name, parameter in encoder.named_parameters()}
    return {
        "vectors": vectors.detach(),
        "gradients": {name: (gradient, pieces[name].start) for name, gradient in gradients_in(encoder).items()},
        "norm": gradient_norm(processes, list(encoder.parameters())),
        "held": sum(values.numel() for values in (*encoder.parameters(), *encoder.buffers())),
    }


def all_steps(processes: ProcessGroup) -> dict[str, Any]:
    return {make.__name__: step(processes, make.__name__) for make in ENCODERS} | {"dropped": dropped(processes)}


def dropped(processes: ProcessGroup) -> tuple[Tensor, Tensor]:
    """Return the matrix with edges left out, and its transposed one, as one step applies them."""
    torch.manual_seed(processes.rank)  # as in training, every process draws for itself
    encoder = LightGCN(GRAPH, 21, layers=1, edge_dropout=0.5)
    encoder.spread(processes)
    adjacency, eye = encoder.adjacency, encoder.nodes.of(torch.eye(21)).requires_grad_()
    assert adjacency is not None
    forward = encoder.nodes.whole(adjacency(eye, adjacency.drop_edges(0.5)))
    processes.share = 0.5
    backward = torch.autograd.grad((forward * torch.eye(21)).sum(), eye)[0]
    return forward.detach(), processes.gather(backward * processes.share)


@pytest.fixture(scope="module")
def both() -> tuple[dict[str, Any], dict[str, Any]]:
    first, second = in_two(all_steps)
    assert isinstance(first, dict) and isinstance(second, dict), (first, second)
    return first, second


@pytest.mark.slow
@pytest.mark.parametrize("make", ENCODERS, ids=lambda make: make.__name__)
def test_two_processes_have_the_vectors_and_gradients_of_one(
    make: Callable[[], GraphEncoder], both: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    """The processes have five and two rows of the batch, so their own mean losses weigh differently."""
    encoder = make()
    vectors = encoder.propagate()
    loss_of(vectors, NODES).backward()  # type: ignore[no-untyped-call]
    for answers in both:
        found = answers[make.__name__]
        torch.testing.assert_close(found["vectors"], vectors.detach())
        assert found["gradients"].keys() == gradients_in(encoder).keys()
        for name, gradient in gradients_in(encoder).items():
            own, start = found["gradients"][name]
            assert (own - gradient[start[0] :][: len(own)]).abs().max() < 1e-6 * gradient.abs().max(), name
        norm = nn.utils.get_total_norm(list(gradients_in(encoder).values()))
        torch.testing.assert_close(found["norm"], norm)


@pytest.mark.slow
def test_each_process_holds_its_slice_alone(both: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """Of 21 nodes and 66 entries the processes have 11 and 10, and 33 each, with their vectors, pointers and entries; a given base stays whole."""
    for answers, nodes in zip(both, (11, 10), strict=True):
        assert answers["lightgcn"]["held"] == 4 * nodes + (nodes + 1) + 3 * 33
        assert answers["matrix_factorisation"]["held"] == 4 * nodes
        assert answers["over_given_vectors"]["held"] == 6 * 21 + 6 * 4 + (nodes + 1) + 3 * 33
        assert answers["lightgcn"]["gradients"]["base.weight"][0].shape == (nodes, 4)


@pytest.mark.slow
def test_both_leave_the_same_edges_out(both: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """Whatever each draws: the dropped matrix is symmetric across the slices, and backward multiplies by it too."""
    matrix, gradient = both[0]["dropped"]
    dense = lightgcn().adjacency.dense()  # type: ignore[union-attr]
    assert torch.equal(matrix, both[1]["dropped"][0])
    assert torch.equal(matrix > 0, (matrix > 0).T)
    assert 0 < (matrix > 0).sum() < (dense > 0).sum()
    torch.testing.assert_close(gradient, matrix.T)


def slices(num_nodes: int, count: int, pointers: Tensor | None = None) -> list[NodeSlice]:
    found = []
    for rank in range(count):
        processes = Processes()
        processes.rank, processes.count = rank, count
        found.append(NodeSlice(num_nodes, processes, pointers))
    return found


def test_slices_lie_one_after_the_other() -> None:
    """Seven nodes over three processes: 0-2, 3-4, 5-6; vectors of the slice are themselves."""
    assert [(nodes.start, nodes.stop) for nodes in slices(7, 3)] == [(0, 3), (3, 5), (5, 7)]
    nodes, vectors = slices(7, 3)[2], torch.arange(7.0)[:, None]
    assert nodes.of(vectors).flatten().tolist() == [5, 6]
    assert nodes.of(nodes.of(vectors)).flatten().tolist() == [5, 6]


def test_busy_nodes_make_a_short_slice() -> None:
    """The first of four nodes has 6 of 9 entries: (1/4 + 6/9) / 2 is nearly half of the work, the second's end more."""
    pointers = torch.tensor([0, 6, 7, 8, 9])
    assert [(nodes.start, nodes.stop) for nodes in slices(4, 2, pointers)] == [(0, 2), (2, 4)]
    assert [(nodes.start, nodes.stop) for nodes in slices(4, 3, pointers)] == [(0, 1), (1, 3), (3, 4)]


def test_one_process_has_the_very_vectors() -> None:
    vectors = torch.randn(7, 2)
    assert NodeSlice(7).of(vectors) is vectors is NodeSlice(7).whole(vectors)
    encoder = lightgcn()
    Propagated(encoder).join(Processes())
    assert Piece.of(next(encoder.parameters())).whole == (21, 4) == next(encoder.parameters()).shape
