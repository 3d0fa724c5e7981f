"""What every numeric encoder promises, and one number worked out by hand for each."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.export import Dim, export

from recembed.numeric import NUMERIC, NumericEncoder
from recembed.schema.feature import Feature
from recembed.schema.fitted import NumericStats

KINDS = sorted(NUMERIC)
FIELDS = sorted(set(NUMERIC) - {"standardize", "log"})
DIM = 8


def stats_of(sample: np.ndarray) -> NumericStats:
    """Fit what the encoders read, from ``[rows, w]`` without missing values."""
    logs = np.log1p(np.maximum(sample, 0))
    return NumericStats(
        mean=sample.mean(0),
        std=sample.std(0),
        log_mean=logs.mean(0),
        log_std=logs.std(0),
        min=sample.min(0),
        max=sample.max(0),
        missing_rate=np.zeros(sample.shape[1]),
        quantiles=np.quantile(sample, np.linspace(0, 1, 257), axis=0).T.astype(np.float32),
    )


def build(kind: str, sample: np.ndarray, **settings: Any) -> NumericEncoder:
    torch.manual_seed(0)
    feature = Feature(name="price", kind="numeric", width=sample.shape[1])
    return NUMERIC[kind](**settings).build(feature, stats_of(sample), DIM)


@pytest.fixture(scope="module")
def sample() -> np.ndarray:
    return np.random.default_rng(0).normal(5, 3, (4000, 3))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch", [0, 1, 5])
def test_shape_and_role(kind: str, batch: int, sample: np.ndarray) -> None:
    encoder = build(kind, sample)
    out = encoder(torch.randn(batch, 3))
    assert out.dtype == torch.float32
    assert out.shape == (batch, encoder.embedding_dim)
    assert encoder.interacts == (kind in FIELDS)
    assert encoder.embedding_dim == (DIM if encoder.interacts else 3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_does_not_depend_on_its_batch(kind: str, sample: np.ndarray) -> None:
    encoder = build(kind, sample)
    x = torch.tensor(sample[:40], dtype=torch.float32)
    x[3, 1] = torch.nan
    alone = torch.cat([encoder(row[None]) for row in x])
    torch.testing.assert_close(encoder(x), alone)


@pytest.mark.parametrize("kind", KINDS)
def test_missing_and_huge_numbers_stay_finite(kind: str, sample: np.ndarray) -> None:
    encoder = build(kind, sample)
    x = torch.tensor([[torch.nan] * 3, [torch.inf] * 3, [-torch.inf] * 3, [3.4e38] * 3, [-3.4e38] * 3, [1e-40] * 3])
    out = encoder(x)
    assert out.isfinite().all()
    torch.testing.assert_close(out[1], out[3])  # both clipped
    torch.testing.assert_close(out[2], out[4])
    assert out.abs().max() <= 10 or not encoder.interacts


@pytest.mark.parametrize("kind", FIELDS)
def test_missing_has_a_learned_vector_of_its_own(kind: str, sample: np.ndarray) -> None:
    encoder = build(kind, sample)
    mean = torch.tensor(sample.mean(0), dtype=torch.float32)[None]
    for column in range(3):
        x = mean.clone()
        x[0, column] = torch.nan
        assert not torch.allclose(encoder(x), encoder(mean))
    for parameter in encoder.parameters():
        parameter.grad = None
    (encoder(torch.full((1, 3), torch.nan)) * torch.randn(DIM)).sum().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in encoder.parameters())


@pytest.mark.parametrize("kind", FIELDS)
def test_every_parameter_gets_a_gradient_and_is_state(kind: str, sample: np.ndarray) -> None:
    encoder = build(kind, sample)
    x = torch.tensor(sample[:500], dtype=torch.float32)
    x[::7] = torch.nan
    (encoder(x) * torch.randn(500, DIM)).sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert (parameter.grad != 0).any(), name
    other = build(kind, sample + 100)  # other statistics, all of them carried over by the state
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1)
    other.load_state_dict(encoder.state_dict())
    torch.testing.assert_close(other(x), encoder(x))


@pytest.mark.parametrize("kind", FIELDS)
@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("init_std", [0.01, 0.1])
def test_fresh_vectors_have_the_scale_of_id_rows(kind: str, width: int, init_std: float) -> None:
    sample = np.random.default_rng(1).normal(50, 20, (4000, width))
    feature = Feature(name="price", kind="numeric", width=width)
    torch.manual_seed(0)
    encoder = NUMERIC[kind](init_std=init_std).build(feature, stats_of(sample), 64)
    measured = encoder(torch.tensor(sample, dtype=torch.float32)).square().mean().sqrt().item()
    assert init_std / 2 < measured < init_std * 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_constant_or_always_missing_feature_works(kind: str) -> None:
    constant = build(kind, np.full((10, 1), 7.0))
    assert constant(torch.tensor([[7.0], [8.0], [torch.nan]])).isfinite().all()
    never = stats_of(np.full((10, 1), np.nan))
    feature = Feature(name="price", kind="numeric")
    assert NUMERIC[kind]().build(feature, never, DIM)(torch.tensor([[7.0], [torch.nan]])).isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_export_with_any_batch(kind: str, sample: np.ndarray) -> None:
    encoder = build(kind, sample)
    program = export(encoder, (torch.randn(4, 3),), dynamic_shapes=({0: Dim("batch")},)).module()
    for batch in (0, 1, 7):
        x = torch.randn(batch, 3)
        x[:1, :1] = torch.nan
        torch.testing.assert_close(program(x), encoder(x))


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_same_encoder_and_autocast_keeps_float32(kind: str, sample: np.ndarray) -> None:
    x = torch.tensor(sample[:20], dtype=torch.float32)
    encoder = build(kind, sample)
    assert torch.equal(encoder(x), build(kind, sample)(x))
    with torch.autocast("cpu", torch.bfloat16):
        out = encoder(x)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, encoder(x), rtol=0.05, atol=1e-3)


def test_a_record_has_its_kind_and_refuses_unknown_keys() -> None:
    for kind, config in NUMERIC.items():
        assert config.model_fields["kind"].default == kind
        assert config.model_validate({"kind": kind}) == config()
        with pytest.raises(ValidationError, match="bucketz"):
            config.model_validate({"kind": kind, "bucketz": 3})


def misfit(kind: str) -> float:
    """Train the encoder to draw a wave that no line can follow; return the share of variance left."""
    x = torch.linspace(-3, 3, 600)[:, None]
    target = (1.5 * x).sin()
    encoder = build(kind, x.numpy().astype(np.float64))
    readout = torch.tensor([[1.0], [-1.0]]).repeat(DIM // 2, 1)  # both signs: a ReLU ends one of the encoders
    optimizer = torch.optim.Adam(encoder.parameters(), lr=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        loss = (encoder(x) @ readout - target).square().mean()
        loss.backward()
        optimizer.step()
    return loss.item() / target.var().item()


@pytest.mark.parametrize("kind", FIELDS)
def test_only_the_line_is_a_line(kind: str) -> None:
    left = misfit(kind)
    assert left > 0.5 if kind == "linear" else left < 0.1, left


def test_standardize_by_hand() -> None:
    encoder = build("standardize", np.array([[1.0], [3.0]]), missing_indicator=True)  # mean 2, deviation 1
    out = encoder(torch.tensor([[5.0], [torch.nan], [1e9], [-1e9]]))
    assert out.tolist() == [[3.0, 0.0], [0.0, 1.0], [10.0, 0.0], [-10.0, 0.0]]
    assert encoder.embedding_dim == 2


def test_log_by_hand_keeps_negatives() -> None:
    logs = np.array([[0.0], [2.0]])  # mean 1, deviation 1
    encoder = build("log", np.expm1(logs))
    out = encoder(torch.tensor([[math.expm1(3)], [0.0], [-2.0], [torch.nan]]))
    torch.testing.assert_close(out, torch.tensor([[2.0], [-1.0], [-math.log(3) - 1], [0.0]]))


def test_linear_by_hand() -> None:
    encoder = build("linear", np.array([[1.0, 10.0], [3.0, 30.0]]))  # means 2, 20; deviations 1, 10
    with torch.no_grad():
        encoder.weight.copy_(torch.tensor([[1.0], [100.0]]).expand(2, DIM))
        encoder.missing.copy_(torch.tensor([[7.0], [9.0]]).expand(2, DIM))
        encoder.bias.fill_(0.5)
    out = encoder(torch.tensor([[5.0, 40.0], [torch.nan, 40.0]]))
    assert out[:, 0].tolist() == [3 + 200 + 0.5, 7 + 200 + 0.5]


def test_mlp_by_hand() -> None:
    encoder = build("mlp", np.array([[1.0], [3.0]]), hidden_units=2)  # mean 2, deviation 1
    with torch.no_grad():
        encoder.hidden.weight.copy_(torch.tensor([[1.0, 5.0], [-1.0, 0.0]]))  # on (z, missing)
        encoder.output.weight.copy_(torch.tensor([[1.0, 10.0]]).expand(DIM, 2))
    out = encoder(torch.tensor([[4.0], [0.0], [torch.nan]]))
    assert out[:, 0].tolist() == [2.0, 20.0, 5.0]


def test_buckets_by_hand() -> None:
    encoder = build("buckets", np.arange(101.0)[:, None], num_buckets=4)  # cuts 25, 50, 75
    with torch.no_grad():
        encoder.table.copy_(torch.arange(5.0)[:, None].expand(5, DIM))
    x = torch.tensor([[-9.0], [24.9], [25.0], [49.0], [50.0], [75.0], [999.0], [torch.inf], [torch.nan]])
    assert encoder(x)[:, 0].tolist() == [0, 0, 1, 1, 2, 3, 3, 3, 4]


def test_buckets_hold_equal_shares_and_columns_have_their_own(sample: np.ndarray) -> None:
    columns = np.concatenate([sample, sample * 1000 - 7], axis=1)
    encoder = build("buckets", columns, num_buckets=8)
    assert encoder.table.shape == (6 * 9, DIM)
    edges = encoder.edges.numpy()
    for column in range(6):
        shares = np.histogram(columns[:, column], np.r_[-np.inf, edges[column], np.inf])[0]
        assert shares.min() > 480  # of 500
        assert shares.max() < 520
    x = torch.tensor(columns[:5], dtype=torch.float32)
    rows = [[c * 9 + sum(e <= x[b, c].item() for e in edges[c].tolist()) for c in range(6)] for b in range(5)]
    slow = torch.stack([sum(encoder.table[row] for row in these) for these in rows])
    torch.testing.assert_close(encoder(x), slow)


def test_piecewise_linear_by_hand() -> None:
    encoder = build("piecewise_linear", np.arange(101.0)[:, None], num_bins=4)
    x = torch.tensor([[0.0], [12.5], [25.0], [60.0], [100.0], [1e30], [-5.0], [torch.nan]])
    expected = [[0, 0, 0, 0], [0.5, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0.4, 0], [1] * 4, [1] * 4, [0] * 4, [0] * 4]
    torch.testing.assert_close(encoder.progress(x)[:, 0], torch.tensor(expected, dtype=torch.float32))
    with torch.no_grad():
        encoder.weight.copy_(torch.tensor([[1.0], [10.0], [100.0], [1000.0]]).expand(4, DIM))
        encoder.missing.fill_(-3)
    torch.testing.assert_close(encoder(x)[:, 0], torch.tensor([0.0, 0.5, 1, 51, 1111, 1111, 0, -3]))


def test_piecewise_linear_merges_bins_without_width() -> None:
    many_zeros = np.concatenate([np.zeros(60), np.arange(1.0, 41.0)])[:, None]
    encoder = build("piecewise_linear", many_zeros, num_bins=10)
    progress = encoder.progress(torch.tensor([[0.0], [40.0]]))[:, 0]
    assert progress[0].tolist() == [0.0] * 10
    assert progress[1].sum() == 5  # cuts 0 0 0 0 0 0 and five more: five bins have no width
    torch.testing.assert_close(encoder(torch.tensor([[0.0]]))[0], encoder.bias)


def test_periodic_by_hand() -> None:
    encoder = build("periodic", np.array([[1.0], [3.0]]), num_frequencies=2)  # mean 2, deviation 1
    with torch.no_grad():
        encoder.frequencies.copy_(torch.tensor([[0.25, 0.5]]))
        encoder.weight.copy_(torch.tensor([[1.0], [10.0], [100.0], [1000.0]]).expand(4, DIM))
        encoder.missing.fill_(-3)
    out = encoder(torch.tensor([[3.0], [4.0], [torch.nan]]))[:, 0]
    # z = 1: sines 1, 0 and cosines 0, -1, so relu(1 - 1000); z = 2: sines 0, 0 and cosines -1, 1
    torch.testing.assert_close(out, torch.tensor([0.0, 900.0, -3.0]), atol=1e-3, rtol=1e-4)


def test_indicator_and_bins_follow_the_meta_device(sample: np.ndarray) -> None:
    for kind in KINDS:
        with torch.device("meta"):
            encoder: nn.Module = build(kind, sample)
        assert {t.device.type for t in [*encoder.parameters(), *encoder.buffers()]} == {"meta"}
