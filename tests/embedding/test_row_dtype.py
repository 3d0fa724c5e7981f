"""Rows of half precision under every method: they train, are counted, saved, compacted, or are refused with the reason."""

from typing import Any

import polars as pl
import pytest
import torch

from recembed.embedding import FeatureEmbedding, embedding_plan
from recembed.errors import ConfigError
from recembed.rows import RowWiseAdagrad
from tests.embedding.fixtures import batch
from tests.embedding.test_contract import CASES, build, objective

REFUSED = ("int8, while training", "int16", "alpt")
every_case = pytest.mark.parametrize("case", [case for case in CASES if case not in REFUSED])
RULE = {"row_optimizer": RowWiseAdagrad(learning_rate=0.1)}


def half(case: str, dtype: str, **options: Any) -> FeatureEmbedding:
    return build(case, settings={"row_dtype": dtype} | RULE | options.pop("settings", {}), **options)


def trained(embedding: FeatureEmbedding, steps: int = 4, first: int = 0) -> FeatureEmbedding:
    for step in range(first, first + steps):
        torch.manual_seed(step)  # some methods draw widths
        objective(embedding, batch(32, embedding.key_features, seed=step)).backward()
    return embedding


@every_case
def test_it_trains_as_float32_up_to_rounding(case: str) -> None:
    narrow = trained(half(case, "float16")).state_dict()
    wide = trained(build(case, settings=RULE)).state_dict()
    errors, sizes = [torch.zeros(1)], [torch.zeros(1)]
    for key, values in wide.items():
        if key.startswith("store.") and key.endswith(".weight"):
            errors.append((narrow[key].float() - values).abs().flatten())
            sizes.append(values.abs().flatten())
    assert torch.cat(errors).mean() <= 0.003 * torch.cat(sizes).mean()


@every_case
def test_planned_bytes_are_the_bytes_taken_and_half_as_many(case: str) -> None:
    planned, taken = half(case, "float16", device="meta"), half(case, "float16")
    rows = [values for key, values in taken.store.state_dict().items() if key.endswith(".weight")]
    assert planned.store.bytes == taken.store.bytes == sum(values.numel() * values.element_size() for values in rows)
    assert 2 * taken.store.bytes == build(case).store.bytes
    assert planned.bytes == taken.bytes == embedding_plan(taken)["trained_bytes"].sum()
    assert taken.served_bytes == build(case).served_bytes


@every_case
def test_a_saved_state_goes_on_bit_for_bit_and_serves(case: str) -> None:
    whole, begun = trained(half(case, "bfloat16"), 5), trained(half(case, "bfloat16"), 3)
    resumed = half(case, "bfloat16")
    resumed.load_state_dict(begun.state_dict())
    trained(resumed, 2, first=3)
    assert all(torch.equal(values, whole.state_dict()[key]) for key, values in resumed.state_dict().items())
    for table in whole.all_tables().values():
        table.settle(whole.store)
    rows = batch(64, whole.key_features, seed=9)
    live, served = whole.eval()(rows), whole.compact()(rows)
    torch.testing.assert_close(served.concat(), live.concat(), rtol=0, atol=1e-6)
    torch.testing.assert_close(served.linear, live.linear, rtol=0, atol=1e-6)


def test_float16_rows_are_served_as_float16_without_loss() -> None:
    embedding = trained(half("full", "float16", settings={"served_dtype": "float16"})).eval()
    rows = batch(64)
    torch.testing.assert_close(embedding.compact()(rows).concat(), embedding(rows).concat(), rtol=0, atol=1e-7)


@pytest.mark.parametrize("case", REFUSED)
def test_methods_that_round_rows_themselves_are_refused(case: str) -> None:
    with pytest.raises(ConfigError, match=r"row_dtype = 'float16': method .* needs float32 rows \(it rounds them"):
        half(case, "float16")


def test_no_other_method_is_refused() -> None:
    refused = [case for case in CASES if any(t.exact_rows for t in build(case).all_tables().values())]
    assert sorted(refused) == sorted(REFUSED)


def test_the_plan_counts_rows_in_their_type_and_states_in_float32() -> None:
    plan = embedding_plan(half("full", "bfloat16")).filter(pl.col("table") == "user")
    assert plan.select("trained_bytes", "optimizer_bytes", "served_bytes").row(0) == (
        2 * 8 * 403, 4 * 403, 4 * 8 * 403,
    )  # fmt: skip
