"""Which stages are refused before anything is trained."""

from typing import Any

import pytest

from recembed.embedding import EmbeddingConfig, FeatureEmbedding
from recembed.errors import ConfigError
from recembed.run.plan import check_stages
from recembed.training.stages import parse_stages
from tests.embedding.fixtures import fitted

SETTLE = [{"name": "train", "do": "train"}, {"name": "settle", "do": "settle"}]


class _Rows:
    def __len__(self) -> int:
        return 1


def check(table: Any, stages: list[dict[str, Any]] | None = None) -> None:
    config = EmbeddingConfig.model_validate({"embedding_dim": 8, "table": table, "row_store": "torch"})
    rows: Any = _Rows()
    check_stages(
        parse_stages(config.table.recipe if stages is None else stages) or (), FeatureEmbedding(fitted(), config), rows
    )


def test_a_matryoshka_has_to_settle_what_its_table_has() -> None:
    with pytest.raises(ConfigError, match="stage 'settle': the tables of this run have nothing to settle"):
        check("matryoshka", SETTLE)
    check({"kind": "matryoshka", "table": {"kind": "pep", "exact_below": 20}}, SETTLE)


@pytest.mark.parametrize("kind", ["optembed", "pep", "dedup", "autodim", "autosrh"])
def test_a_method_of_several_stages_runs_though_every_table_is_exact(kind: str) -> None:
    table = {"kind": kind, "exact_below": 1000}
    check(table)
    with pytest.raises(ConfigError, match=r"have nothing to settle; methods that do: .*exact_below"):
        check(table, SETTLE)
