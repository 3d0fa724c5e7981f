"""Multi-embedding: one lookup, several sets, each with a model of its own."""

from dataclasses import replace
from typing import Any

import polars as pl
import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim, export

from recembed.batch import Batch
from recembed.config import RunConfig, parse_model
from recembed.data import fit
from recembed.embedded import Embedded
from recembed.embedding import FeatureEmbedding
from recembed.errors import ConfigError
from recembed.models import MODELS, CTRModel, MultiEmbedding, MultiEmbeddingConfig
from recembed.models.multi_embedding import EmbeddingSet
from recembed.run import build_model
from recembed.schema.feature import Schema
from tests.models.stub import StubEmbedding, batch_of
from tests.models.test_models import SMALL

INNER = sorted(MODELS.keys() - {"logistic_regression", "multi_embedding"})
FIELDS, DENSE = 4, 2


def build(kind: str, sets: int, *, width: int = 6, **embedding: Any) -> MultiEmbedding:
    torch.manual_seed(0)
    part = StubEmbedding(widths=(width,) * FIELDS, dense=DENSE, **embedding)
    return MultiEmbeddingConfig(model={"kind": kind, **SMALL[kind]}, sets=sets).build(part)


def information_abundance(vectors: Tensor) -> float:
    """Sum of the singular values over the largest: how many directions the vectors use, 1 to D."""
    values = torch.linalg.svdvals(vectors)
    return float(values.sum() / values.max())


def test_worked_by_hand() -> None:
    """Two fields of two sets of one number: FM gives 2 * 5 in the first set, 3 * 7 in the second; their mean is 15.5."""
    embedding = StubEmbedding(widths=(2, 2))
    with torch.no_grad():
        embedding.tables[0][0] = torch.tensor([2.0, 3.0])
        embedding.tables[1][0] = torch.tensor([5.0, 7.0])
        embedding.first_order.copy_(torch.full((2, 10), 0.25))
    model = MultiEmbedding(embedding, model=parse_model("fm"), sets=2)
    batch = Batch(torch.zeros(1, 2, dtype=torch.int64), {}, torch.zeros(1, 0), torch.zeros(1, 1))
    assert model(batch).tolist() == [15.5 + 0.5]  # first-order weights count once


@pytest.mark.parametrize("kind", INNER)
def test_one_set_is_the_model_itself_number_for_number(kind: str) -> None:
    multi = build(kind, 1)
    torch.manual_seed(0)
    part = StubEmbedding(widths=(6,) * FIELDS, dense=DENSE)
    base = MODELS[kind](**SMALL[kind]).build(part)
    batch = batch_of(9, fields=FIELDS, dense=DENSE)
    assert torch.equal(multi(batch), base(batch))
    for model in (multi, base):
        model(batch).square().sum().backward()
    for ours, theirs in zip(multi.embedding.parameters(), base.embedding.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=0, atol=0)


@pytest.mark.parametrize("kind", INNER)
def test_sets_are_models_over_their_own_numbers(kind: str) -> None:
    """The mean of two base models, each on its half of every row."""
    multi, batch = build(kind, 2), batch_of(9, fields=FIELDS, dense=DENSE)
    expected = []
    for place, trained in enumerate(multi.models):
        part = StubEmbedding(widths=(3,) * FIELDS, dense=DENSE)
        half = slice(3 * place, 3 * place + 3)
        with torch.no_grad():
            for table, whole in zip(part.tables, multi.embedding.tables, strict=True):
                table.copy_(whole[:, half])
            part.first_order.copy_(multi.embedding.first_order)
        base = MODELS[kind](**SMALL[kind]).build(part)
        base.load_state_dict(trained.state_dict(), strict=False)
        expected.append(base(batch))
    torch.testing.assert_close(multi(batch), torch.stack(expected).mean(0))


def test_fields_of_several_widths_are_cut_each_by_its_own() -> None:
    part = StubEmbedding(widths=(2, 4))
    batch = batch_of(5, fields=2, dense=0)
    whole = part(batch)
    seen: list[Embedded] = []

    class Spy(CTRModel):
        def forward(self, batch: Batch) -> Tensor:
            seen.append(self.embedding(batch))
            return seen[-1].fields.values.sum(1)

    model = MultiEmbedding(part, model=parse_model("dcnv2"), sets=2)
    model.models = nn.ModuleList(Spy(EmbeddingSet(part, place, 2)) for place in range(2))
    model(batch)
    assert [embedded.fields.widths for embedded in seen] == [(1, 2), (1, 2)]
    columns = [[0, 2, 3], [1, 4, 5]]
    for embedded, own in zip(seen, columns, strict=True):
        assert torch.equal(embedded.fields.values, whole.fields.values[:, own])


@pytest.mark.parametrize("kind", INNER)
def test_rows_are_looked_up_once_a_batch(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    forward = StubEmbedding.forward
    monkeypatch.setattr(StubEmbedding, "forward", lambda self, batch: calls.append(1) or forward(self, batch))
    build(kind, 3)(batch_of(5, fields=FIELDS, dense=DENSE))
    assert len(calls) == 1


@pytest.mark.parametrize("kind", INNER)
def test_networks_multiply_and_rows_do_not(kind: str) -> None:
    def count(module: nn.Module) -> int:
        return sum(parameter.numel() for parameter in module.parameters())

    multi, narrow = build(kind, 3), build(kind, 1, width=2)
    assert count(multi.embedding.tables) == 3 * count(narrow.embedding.tables) == FIELDS * 10 * 6
    assert count(multi.models) == 3 * count(narrow.models)


@pytest.mark.parametrize("kind", INNER)
@pytest.mark.parametrize("sets", [1, 2])
def test_exported_equals_eager(kind: str, sets: int) -> None:
    class Flat(nn.Module):
        def __init__(self, model: CTRModel) -> None:
            super().__init__()
            self.model = model

        def forward(self, ids: Tensor, numeric: Tensor) -> Tensor:
            logits: Tensor = self.model(Batch(ids, {}, numeric, numeric[:, :0]))
            return logits

    model, example, rows = Flat(build(kind, sets).eval()), batch_of(4, fields=FIELDS, dense=DENSE), Dim("rows")
    with torch.no_grad():
        program = export(model, (example.ids, example.numeric), dynamic_shapes=({0: rows}, {0: rows})).module()
        for count in (1, 7):
            batch = batch_of(count, fields=FIELDS, dense=DENSE, seed=count)
            torch.testing.assert_close(program(batch.ids, batch.numeric), model(batch.ids, batch.numeric))


def test_information_abundance_counts_the_directions_in_use() -> None:
    orthogonal, _ = torch.linalg.qr(torch.randn(50, 8))
    assert information_abundance(orthogonal) == pytest.approx(8, abs=1e-4)
    assert information_abundance(torch.randn(50, 1) @ torch.randn(1, 8)) == pytest.approx(1, abs=1e-4)
    assert information_abundance(torch.randn(3, 8)) <= 3


def test_sets_differ_after_training() -> None:
    """Three sets started from the same numbers are told apart by their models: their spans are not the same."""
    model, batch = build("dcnv2", 3, width=12), batch_of(200, fields=FIELDS, dense=DENSE)
    with torch.no_grad():
        for table in model.embedding.tables:
            table.copy_(0.1 * table[:, :4].repeat(1, 3))
    labels = (batch.ids.sum(1) % 2).float()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    first = None
    for _ in range(60):
        loss = nn.functional.binary_cross_entropy_with_logits(model(batch), labels)
        first = first or loss.item()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.7 * first
    one, two = (model.embedding.tables[0].detach()[:, 4 * place : 4 * place + 4] for place in (0, 1))
    bases = [torch.linalg.qr(part).Q for part in (one, two)]
    assert torch.linalg.svdvals(bases[0].t() @ bases[1]).mean() < 0.9  # cosines of the principal angles


def test_a_run_builds_what_the_model_inside_needs() -> None:
    frame = pl.DataFrame({"user": [1, 2, 3], "item": [4, 5, 6], "click": [0, 1, 1]})
    schema = Schema.parse({"features": [{"name": "user"}, {"name": "item"}], "labels": [{"name": "click"}]})
    fitted = fit(frame, schema)

    def built(kind: str, table: Any = "full") -> CTRModel:
        model = {"kind": "multi_embedding", "model": kind, "sets": 2}
        raw = {"data": {"dataset": "ml100k"}, "model": model, "embeddings": {"embedding_dim": 8, "table": table}}
        config = RunConfig.parse(raw)
        assert RunConfig.parse(config.to_dict()) == config
        return build_model(fitted, config)

    assert isinstance(built("dcnv2").embedding, FeatureEmbedding)
    assert not built("dcnv2").embedding.linear and built("deepfm").embedding.linear
    wide = {"kind": "multiplexed", "num_embeddings": 9, "probes": {"user": 2}, "row_dim": 4, "exact_below": 0}
    assert built("dcnv2", wide).embedding.field_widths == (8, 4)
    assert built("dlrm", wide).embedding.field_widths == (8, 8)  # projected, as the model inside asks


def test_the_batch_keeps_what_it_had() -> None:
    batch = replace(batch_of(3, fields=FIELDS, dense=DENSE), rows=torch.arange(3))
    seen: list[Batch] = []
    model = build("dcnv2", 2)
    model.models[1].register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    model(batch)
    assert torch.equal(seen[0].rows, batch.rows) and seen[0].ids is batch.ids and len(seen[0]) == 3


def test_bad_settings() -> None:
    with pytest.raises(ConfigError, match=r"field 'f0' is 6 wide, not a multiple of sets = 4; set .* such as 24"):
        build("dcnv2", 4)
    with pytest.raises(ConfigError, match="around LogisticRegression: it reads no vectors"):
        build("logistic_regression", 2)
    with pytest.raises(ConfigError, match="'multi_embedding' holds another one"):
        parse_model({"kind": "multi_embedding", "model": "multi_embedding"})
    with pytest.raises(ConfigError, match="model kind 'dcn2' is not known; did you mean 'dcnv2'"):
        parse_model({"kind": "multi_embedding", "model": "dcn2"})
    with pytest.raises(ConfigError, match="sets = 0"):
        parse_model({"kind": "multi_embedding", "sets": 0})
