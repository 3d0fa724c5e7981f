"""What every model promises: shape, gradients, export, autocast, words of its errors."""

from inspect import signature
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.export import Dim, export

from recembed.batch import Batch
from recembed.errors import ConfigError
from recembed.models import MODELS, CTRModel
from tests.models.stub import StubEmbedding, batch_of

SMALL: dict[str, dict[str, Any]] = {
    "logistic_regression": {},
    "fm": {},
    "wide_and_deep": {"hidden_units": (5, 3)},
    "deepfm": {"hidden_units": (5, 3)},
    "dlrm": {"bottom_units": (5,), "top_units": (6, 3)},
    "dcnv2": {"hidden_units": (5, 3), "cross": {"layers": 2}},
    "multi_embedding": {"model": {"kind": "deepfm", "hidden_units": (5, 3)}, "sets": 3},
}
CASES = [
    *SMALL.items(),
    ("dcnv2", {"hidden_units": (5, 3), "cross": {"layers": 2, "rank": 2, "experts": 3, "stacked": True}}),
    ("dcnv2", {"hidden_units": ()}),
    ("deepfm", {"hidden_units": (5,), "batch_norm": True, "activation": "gelu"}),
    ("wide_and_deep", {"hidden_units": (5,), "dropout": 0.5, "activation": "tanh"}),
    ("multi_embedding", {"model": {"kind": "dcnv2", "hidden_units": (5,)}, "sets": 3}),
]
FIELDS, DIM = 4, 3


def build(kind: str, settings: dict[str, Any], *, dense: int = 2, **embedding: Any) -> CTRModel:
    torch.manual_seed(0)
    return MODELS[kind](**settings).build(StubEmbedding(widths=(DIM,) * FIELDS, dense=dense, **embedding)).eval()


def test_every_kind_has_a_case() -> None:
    assert set(SMALL) == set(MODELS)


@pytest.mark.parametrize(("kind", "settings"), CASES)
@pytest.mark.parametrize("dense", [0, 2])
def test_one_logit_per_row_for_any_batch(kind: str, settings: dict[str, Any], dense: int) -> None:
    model = build(kind, settings, dense=dense)
    batch = batch_of(6, fields=FIELDS, dense=dense)
    logits = model(batch)
    assert logits.shape == (6,)
    assert logits.dtype == torch.float32
    assert logits.std() > 0
    alone = [model(Batch(batch.ids[r : r + 1], {}, batch.numeric[r : r + 1], batch.labels)) for r in range(6)]
    torch.testing.assert_close(torch.cat(alone), logits)
    assert model(batch_of(0, fields=FIELDS, dense=dense)).shape == (0,)


@pytest.mark.parametrize(("kind", "settings"), CASES)
@pytest.mark.parametrize("dense", [0, 2])
def test_every_parameter_gets_a_gradient(kind: str, settings: dict[str, Any], dense: int) -> None:
    model = build(kind, settings, dense=dense).train()
    model(batch_of(64, fields=FIELDS, dense=dense)).square().sum().backward()
    needs_linear = MODELS[kind](**settings).builds.needs_linear
    unused = {"embedding.first_order"} if not needs_linear else set()
    if kind == "logistic_regression":
        unused = {name for name, _ in model.named_parameters() if "tables" in name}
    for name, parameter in model.named_parameters():
        if name not in unused:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert (parameter.grad != 0).any() or name.endswith(("0.bias", "3.bias")), name  # batch norm eats a bias


@pytest.mark.parametrize(("kind", "settings"), CASES)
@pytest.mark.parametrize("dense", [0, 2])
def test_export_with_any_batch(kind: str, settings: dict[str, Any], dense: int) -> None:
    class Flat(nn.Module):
        def __init__(self, model: CTRModel) -> None:
            super().__init__()
            self.model = model

        def forward(self, ids: Tensor, numeric: Tensor) -> Tensor:
            logits: Tensor = self.model(Batch(ids, {}, numeric, numeric[:, :0]))
            return logits

    model = Flat(build(kind, settings, dense=dense))
    example = batch_of(4, fields=FIELDS, dense=dense)
    rows = Dim("rows")
    with torch.no_grad():
        program = export(model, (example.ids, example.numeric), dynamic_shapes=({0: rows}, {0: rows})).module()
        for count in (1, 2, 9):
            batch = batch_of(count, fields=FIELDS, dense=dense, seed=count)
            torch.testing.assert_close(program(batch.ids, batch.numeric), model(batch.ids, batch.numeric))


@pytest.mark.parametrize(("kind", "settings"), CASES)
def test_bf16_autocast_trains(kind: str, settings: dict[str, Any]) -> None:
    model = build(kind, settings)
    batch = batch_of(32, fields=FIELDS, dense=2)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(batch)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, model(batch), rtol=0.05, atol=0.3)
    logits.sum().backward()
    if not kind.startswith("logistic"):
        assert model.embedding.tables[0].grad.dtype == torch.float32
        assert model.embedding.tables[0].grad.abs().sum() > 0


@pytest.mark.parametrize("kind", sorted(MODELS))
def test_same_seed_same_model_and_state_round_trip(kind: str) -> None:
    batch = batch_of(5, fields=FIELDS, dense=2)
    model, again = build(kind, SMALL[kind]), build(kind, SMALL[kind])
    assert torch.equal(model(batch), again(batch))
    with torch.no_grad():
        for parameter in again.parameters():
            parameter.add_(0.1)
    assert not torch.equal(model(batch), again(batch))
    again.load_state_dict(model.state_dict())
    assert torch.equal(model(batch), again(batch))


@pytest.mark.parametrize("kind", sorted(MODELS))
def test_fresh_logits_over_fresh_rows_are_small(kind: str) -> None:
    torch.manual_seed(0)
    embedding = StubEmbedding(widths=(16,) * 26, dense=13, std=0.01)
    with torch.no_grad():
        embedding.first_order.mul_(0.01)
    model = MODELS[kind]().build(embedding).eval()
    assert model(batch_of(500, fields=26, dense=13)).std() < 2


@pytest.mark.parametrize("kind", sorted(MODELS))
def test_constructors_take_five_arguments_at_most(kind: str) -> None:
    parameters = list(signature(MODELS[kind].builds.__init__).parameters.values())[1:]
    assert len(parameters) <= 5
    assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in parameters[1:])
    fields = set(MODELS[kind].model_fields) - {"kind"}
    assert fields == {parameter.name for parameter in parameters[1:]}
    defaults = {parameter.name: parameter.default for parameter in parameters[1:]}
    assert defaults == {name: getattr(MODELS[kind](), name) for name in fields}


def test_a_record_has_its_kind_and_refuses_unknown_keys() -> None:
    for kind, config in MODELS.items():
        assert config.model_fields["kind"].default == kind
        assert config.model_validate({"kind": kind, **SMALL[kind]}) == config(**SMALL[kind])
        with pytest.raises(ValidationError, match="hidden_unit"):
            config.model_validate({"kind": kind, "hidden_unit": 3})


@pytest.mark.parametrize("kind", sorted(MODELS))
def test_an_unpooled_sequence_is_refused(kind: str) -> None:
    embedding = StubEmbedding(widths=(DIM,) * FIELDS)
    embedding.sequence_widths = {"history": DIM}
    with pytest.raises(ConfigError, match="history comes as a sequence: set its pooling to 'sum', 'mean' or 'max'"):
        MODELS[kind](**SMALL[kind]).build(embedding)


@pytest.mark.parametrize("kind", sorted(MODELS))
def test_missing_first_order_weights_are_refused(kind: str) -> None:
    embedding = StubEmbedding(widths=(DIM,) * FIELDS, linear=False)
    config = MODELS[kind](**SMALL[kind])
    if config.builds.needs_linear:
        with pytest.raises(ConfigError, match="needs first-order weights: build the embedding with linear=True"):
            config.build(embedding)
    else:
        config.build(embedding)


@pytest.mark.parametrize("kind", sorted(MODELS.keys() - {"multi_embedding"}))  # its own file: widths must divide
def test_unequal_widths_are_refused_where_fields_meet(kind: str) -> None:
    embedding = StubEmbedding(widths=(2, 3))
    if MODELS[kind].builds.needs_equal_widths:
        with pytest.raises(ConfigError, match=r"fields of one width, not f0 2, f1 3: set embeddings\.project = true"):
            MODELS[kind]().build(embedding)
    else:
        model = MODELS[kind](**SMALL[kind]).build(embedding)
        assert model(batch_of(3, fields=2, dense=0)).shape == (3,)
