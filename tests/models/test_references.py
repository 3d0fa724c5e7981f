"""Each model against a slow, obvious loop in float64, and the properties its paper promises."""

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from recembed.embedded import Embedded, KeyedTensor
from recembed.errors import ConfigError
from recembed.models import DLRM, FM, Cross, CTRModel, DCNv2, DeepFM, LogisticRegression, WideAndDeep
from recembed.models.blocks import MLP, factorization_machine, fields_and_pairs
from recembed.models.cross import CrossLayer, CrossNetwork, LowRankCrossLayer
from recembed.models.pairwise_dot import PairwiseDot
from tests.models.stub import StubEmbedding, batch_of

FIELDS, DIM, DENSE, ROWS = 4, 3, 2, 5
Vector = list[float]


def embedding_of(dense: int = DENSE, fields: int = FIELDS) -> StubEmbedding:
    torch.manual_seed(1)
    return StubEmbedding(widths=(DIM,) * fields, dense=dense)


def dot(left: Sequence[float], right: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(left, right, strict=True))


def linear(x: Vector, layer: nn.Linear) -> Vector:
    return [dot(row, x) + b for row, b in zip(layer.weight.tolist(), layer.bias.tolist(), strict=True)]


def mlp(x: Vector, layers: nn.Module) -> Vector:
    for layer in layers.children():
        x = linear(x, layer) if isinstance(layer, nn.Linear) else [max(value, 0.0) for value in x]
    return x


def first_order(model: CTRModel, row: int) -> float:
    batch = batch_of(ROWS, fields=FIELDS, dense=DENSE)
    weights = model.embedding.first_order
    ids = sum(weights[place, key].item() for place, key in enumerate(batch.ids[row].tolist()))
    part = model.first_order
    return ids + dot(part.weight.tolist(), batch.numeric[row].tolist()) + part.bias.item()


def vectors_of(model: CTRModel, row: int) -> list[Vector]:
    batch = batch_of(ROWS, fields=FIELDS, dense=DENSE)
    return [model.embedding.tables[f][key].tolist() for f, key in enumerate(batch.ids[row].tolist())]


def flat_of(model: CTRModel, row: int) -> Vector:
    numbers = batch_of(ROWS, fields=FIELDS, dense=DENSE).numeric[row].tolist()
    return [value for vector in [*vectors_of(model, row), numbers] for value in vector]


def pairs(vectors: list[Vector]) -> Vector:
    return [dot(vectors[i], vectors[j]) for i in range(len(vectors)) for j in range(i)]


def shaken(model: CTRModel) -> CTRModel:
    """Move every parameter, so that nothing a test compares is zero by its start."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


def compare(model: CTRModel, expected: Vector) -> None:
    logits = model(batch_of(ROWS, fields=FIELDS, dense=DENSE))
    torch.testing.assert_close(logits.double(), torch.tensor(expected, dtype=torch.float64), rtol=1e-4, atol=1e-4)


def test_logistic_regression() -> None:
    model = shaken(LogisticRegression(embedding_of()))
    compare(model, [first_order(model, row) for row in range(ROWS)])


def test_fm() -> None:
    model = shaken(FM(embedding_of()))
    compare(model, [first_order(model, row) + sum(pairs(vectors_of(model, row))) for row in range(ROWS)])


def test_wide_and_deep() -> None:
    model = shaken(WideAndDeep(embedding_of(), hidden_units=(5, 4)))
    deep = [linear(mlp(flat_of(model, row), model.deep), model.output)[0] for row in range(ROWS)]
    compare(model, [first_order(model, row) + deep[row] for row in range(ROWS)])


def test_deepfm() -> None:
    model = shaken(DeepFM(embedding_of(), hidden_units=(5, 4)))
    deep = [linear(mlp(flat_of(model, row), model.deep), model.output)[0] for row in range(ROWS)]
    compare(model, [first_order(model, r) + sum(pairs(vectors_of(model, r))) + deep[r] for r in range(ROWS)])


@pytest.mark.parametrize("kind", [WideAndDeep, DeepFM])
def test_a_zero_mlp_leaves_the_shallow_model(kind: type[WideAndDeep] | type[DeepFM]) -> None:
    embedding = embedding_of()
    deep, shallow = kind(embedding, hidden_units=(5,)), (FM if kind is DeepFM else LogisticRegression)(embedding)
    nn.init.zeros_(deep.output.weight)
    batch = batch_of(ROWS, fields=FIELDS, dense=DENSE)
    torch.testing.assert_close(deep(batch), shallow(batch))


def test_dlrm() -> None:
    model = shaken(DLRM(embedding_of(), bottom_units=(4,), top_units=(6, 5)))
    expected = []
    for row in range(ROWS):
        dense = mlp(batch_of(ROWS, fields=FIELDS, dense=DENSE).numeric[row].tolist(), model.bottom)
        read = [*dense, *pairs([dense, *vectors_of(model, row)])]
        expected.append(linear(mlp(read, model.top), model.output)[0])
    compare(model, expected)


def test_dlrm_without_dense_columns() -> None:
    model = shaken(DLRM(embedding_of(dense=0), top_units=(6,)))
    assert model.bottom is None
    batch = batch_of(ROWS, fields=FIELDS, dense=0)
    assert model.interact(batch).shape == (ROWS, 6)
    vectors = [[model.embedding.tables[f][key].tolist() for f, key in enumerate(ids)] for ids in batch.ids.tolist()]
    expected = [linear(mlp(pairs(these), model.top), model.output)[0] for these in vectors]
    torch.testing.assert_close(model(batch), torch.tensor(expected), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("fields", [1, 2, 4])
def test_dlrm_interaction_width(fields: int) -> None:
    model = DLRM(embedding_of(fields=fields), bottom_units=(), top_units=(3,))
    read = model.interact(batch_of(ROWS, fields=fields, dense=DENSE))
    assert read.shape == (ROWS, (fields + 1) * fields // 2 + DIM)


def test_dlrm_interaction_ignores_a_common_rotation() -> None:
    model = DLRM(embedding_of(dense=0))
    batch = batch_of(ROWS, fields=FIELDS, dense=0)
    before = model.interact(batch)
    turn, _ = torch.linalg.qr(torch.randn(DIM, DIM))
    with torch.no_grad():
        for table in model.embedding.tables:
            table.copy_(table @ turn)
    torch.testing.assert_close(model.interact(batch), before)


@pytest.mark.parametrize(("fields", "dense"), [(1, 0), (0, 2)])
def test_dlrm_refuses_what_makes_no_pair(fields: int, dense: int) -> None:
    with pytest.raises(ConfigError, match=f"DLRM has {fields} fields and {dense} dense columns: it needs two fields"):
        DLRM(embedding_of(dense=dense, fields=fields))


@pytest.mark.parametrize("stacked", [False, True])
def test_dcnv2(stacked: bool) -> None:
    model = shaken(DCNv2(embedding_of(), cross=Cross(layers=2, stacked=stacked), hidden_units=(5, 4)))
    expected = []
    for row in range(ROWS):
        x0 = x = flat_of(model, row)
        for layer in model.cross.layers:
            x = [a * b + c for a, b, c in zip(x0, linear(x, layer.linear), x, strict=True)]
        read = mlp(x, model.deep) if stacked else [*x, *mlp(x0, model.deep)]
        expected.append(linear(read, model.output)[0])
    compare(model, expected)


def test_dcnv2_low_rank_mixture() -> None:
    model = shaken(DCNv2(embedding_of(), cross=Cross(layers=1, rank=2, experts=3), hidden_units=()))
    layer = model.cross.layers[0]
    expected = []
    for row in range(ROWS):
        x = flat_of(model, row)
        scores = [dot(column, x) for column in layer.gate.t().tolist()]
        total = layer.bias.tolist()
        for k in range(3):
            gate = math.exp(scores[k]) / sum(math.exp(score) for score in scores)
            v = [math.tanh(dot(column, x)) for column in layer.down[:, 2 * k : 2 * k + 2].t().tolist()]
            c = [math.tanh(dot(column, v)) for column in layer.core[k].t().tolist()]
            u = [dot(column, c) for column in layer.up[2 * k : 2 * k + 2].t().tolist()]
            total = [t + gate * value for t, value in zip(total, u, strict=True)]
        crossed = [a * t + a for a, t in zip(x, total, strict=True)]
        expected.append(linear(crossed, model.output)[0])
    compare(model, expected)


def test_factorization_machine_is_the_sum_over_pairs() -> None:
    torch.manual_seed(0)
    vectors = torch.randn(7, 6, 5, dtype=torch.float64)
    expected = torch.tensor([sum(pairs(row)) for row in vectors.tolist()])
    torch.testing.assert_close(factorization_machine(vectors), expected, rtol=1e-5, atol=1e-5)
    assert factorization_machine(vectors.bfloat16()).dtype == torch.float32
    vectors.requires_grad_()
    weights = torch.arange(1.0, 8.0, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(factorization_machine(vectors) @ weights.float(), vectors)
    summed = 0.5 * (vectors.sum(1).square().sum(1) - vectors.square().sum((1, 2)))
    torch.testing.assert_close(gradient, torch.autograd.grad(summed @ weights, vectors)[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("width", [0, 2])
@pytest.mark.parametrize("wanted", [(1.0, 1.0), (1.0, 0.0), (0.0, 1.0)])
def test_fields_and_pairs_have_the_gradient_of_both(wanted: tuple[float, float], width: int) -> None:
    torch.manual_seed(0)
    values, dense = torch.randn(7, 30, requires_grad=True), torch.randn(7, width, requires_grad=True)
    embedded = Embedded(KeyedTensor(tuple("abcdef"), (5,) * 6, values), dense, None, {})
    fields, sums = fields_and_pairs(embedded)
    vectors = values.view(7, 6, 5)
    expected = torch.cat([values, dense], dim=1), 0.5 * (vectors.sum(1).square().sum(1) - vectors.square().sum((1, 2)))
    torch.testing.assert_close((fields, sums), expected)
    with torch.no_grad():
        torch.testing.assert_close(fields_and_pairs(embedded), expected)
    beside, weights = torch.randn(7, 30 + width), torch.randn(7)
    got, plain = (
        torch.autograd.grad(wanted[0] * (both[0] * beside).sum() + wanted[1] * both[1] @ weights, (values, dense))
        for both in ((fields, sums), expected)
    )
    torch.testing.assert_close(got, plain, rtol=1e-5, atol=1e-5)


def test_pairwise_dot_is_the_lower_triangle_of_the_gram_matrix() -> None:
    torch.manual_seed(0)
    vectors = torch.randn(3, 5, 4, dtype=torch.float64, requires_grad=True)
    dots = PairwiseDot(5)
    torch.testing.assert_close(dots(vectors), torch.tensor([pairs(row) for row in vectors.tolist()]).double())
    assert torch.autograd.gradcheck(dots, (vectors,))


def test_a_cross_layer_of_zeros_is_the_identity() -> None:
    x0, x = torch.randn(2, 4, 6).unbind()
    full, low = CrossLayer(6), LowRankCrossLayer(6, rank=2, experts=2)
    for parameter in [*full.parameters(), low.up, low.bias]:
        nn.init.zeros_(parameter)
    assert torch.equal(full(x0, x), x)
    assert torch.equal(low(x0, x), x)


def test_a_rank_one_matrix_gives_the_first_dcn() -> None:
    """DCN (2017): ``x0 <w, x> + b + x``; here ``W = 1 w'`` and no bias."""
    x0, x, w = torch.randn(4, 6), torch.randn(4, 6), torch.randn(6)
    layer = CrossLayer(6)
    with torch.no_grad():
        layer.linear.weight.copy_(torch.ones(6, 1) * w)
    torch.testing.assert_close(layer(x0, x), x0 * (x @ w)[:, None] + x)


def test_one_linear_expert_is_the_product_of_its_factors() -> None:
    x0, x = torch.randn(4, 6), torch.randn(4, 6)
    low = LowRankCrossLayer(6, rank=2, activation=nn.Identity())
    full = CrossLayer(6)
    with torch.no_grad():
        low.core.copy_(torch.eye(2)[None])
        full.linear.weight.copy_((low.down @ low.up).t())
    torch.testing.assert_close(low(x0, x), full(x0, x))


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_layers_of_crosses_are_a_polynomial_of_one_degree_more(layers: int) -> None:
    torch.manual_seed(0)
    network = CrossNetwork(4, layers=layers).double()
    start, step = torch.randn(2, 4, dtype=torch.float64).unbind()
    line = torch.stack([network((start + t * step)[None])[0] for t in range(layers + 3)])  # [points, 4]

    def differences(order: int) -> Tensor:
        return torch.diff(line, n=order, dim=0)

    torch.testing.assert_close(differences(layers + 2), torch.zeros(1, 4, dtype=torch.float64), rtol=0, atol=1e-8)
    assert (differences(layers + 1).abs() > 1e-5).all()


def test_cross_parameters_are_those_of_the_paper() -> None:
    def count(network: nn.Module) -> int:
        return sum(parameter.numel() for parameter in network.parameters())

    assert count(CrossNetwork(12, layers=3)) == 3 * (12 * 12 + 12)
    assert count(CrossNetwork(12, layers=2, rank=3)) == 2 * (2 * 12 * 3 + 3 * 3 + 12)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"layers": 0}, "cross.layers = 0: expected at least 1"),
        ({"layers": 1, "rank": 0}, "cross.rank = 0: expected at least 1"),
        ({"layers": 1, "experts": 4}, "cross.experts = 4 needs a rank: set cross.rank, for example 3"),
    ],
)
def test_a_cross_network_refuses_impossible_numbers(settings: dict[str, int], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        CrossNetwork(12, **settings)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"hidden_units": (4, 0)}, r"are \[5, 4, 0\] wide: expected at least 1 each"),
        ({"hidden_units": (4,), "dropout": 1.0}, "dropout = 1.0: expected 0 or more and less than 1"),
        ({"hidden_units": (4,), "activation": "rely"}, "activation = 'rely' is unknown; did you mean 'relu'"),
    ],
)
def test_an_mlp_refuses_impossible_settings(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        MLP(5, **settings)  # type: ignore[arg-type]


def test_an_mlp_has_its_layers_in_order() -> None:
    layers = MLP(5, hidden_units=(4,), activation="silu", dropout=0.2, batch_norm=True)
    assert [type(layer) for layer in layers] == [nn.Linear, nn.BatchNorm1d, nn.SiLU, nn.Dropout]
    wide = MLP(500, hidden_units=(400, 300))
    assert wide[2].weight.std().item() == pytest.approx((2 / 400) ** 0.5, rel=0.02)
    assert MLP(5, hidden_units=()).out_width == 5
