"""Which stages a run has, and whether its tables and rows are fit for them."""

from recembed.config import RunConfig
from recembed.data import EncodedData
from recembed.embedding import EmbeddingConfig, FeatureEmbedding
from recembed.errors import ConfigError
from recembed.schema.feature import Schema
from recembed.tables import TABLES, TableConfig
from recembed.training.stages import SettleStage, Stage, TrainStage, WidthsStage, parse_stages

__all__ = ["check_stages", "planned_stages"]


def planned_stages(config: RunConfig, schema: Schema) -> tuple[Stage, ...]:
    """Return the stages that the config names, else those its methods ask for; none is a single training.

    Raises:
        ConfigError: two methods ask for different stages.
    """
    if config.stages is not None:
        return config.stages
    asking = {method.kind: method.recipe for method in _methods(config.embeddings, schema) if method.recipe}
    recipes = list(asking.values())
    if any(recipe != recipes[0] for recipe in recipes):
        raise ConfigError(
            f"tables {', '.join(map(repr, asking))} ask for different stages; write the stages of this run under "
            "'stages', each with a name and do: train, widths or settle"
        )
    return parse_stages(recipes[0]) or () if recipes else ()


def _methods(config: EmbeddingConfig, schema: Schema) -> list[TableConfig]:
    names = {feature.vocabulary_name for feature in (*schema.categorical, *schema.jagged)}
    return [config.table_of(name) for name in sorted(names)]


def check_stages(stages: tuple[Stage, ...], embedding: FeatureEmbedding, valid: EncodedData) -> None:
    """Refuse stages that have nothing to work on, before anything is trained.

    Where a method brings its own stages and every feature is small enough for an exact table, there is nothing to settle or
    to search, and no width to choose: these stages pass then, and find nothing.

    Raises:
        ConfigError: there are no validation rows, or no table has anything to search or to settle.
    """
    tables = embedding.all_tables().values()
    own = any(parse_stages(method.recipe) == stages for method in _methods(embedding.config, embedding.schema))
    for stage in stages:
        if isinstance(stage, SettleStage):
            _check_work(stage, own or any(table.settles for table in tables), "settle")
        if isinstance(stage, WidthsStage):
            _check_work(stage, own or any(len(table.width_choices()) > 1 for table in tables), "widths")
        if isinstance(stage, TrainStage) and stage.search:
            _check_work(stage, own or any(table.search_parameters() for table in tables), "search")
        searches = isinstance(stage, WidthsStage) or (isinstance(stage, TrainStage) and stage.search)
        if searches and not len(valid):
            raise ConfigError(
                f"stage {stage.name!r} searches by validation rows, and this split has none; set split.valid, "
                "for example to 0.1"
            )


_WORK = {"settle": "nothing to settle", "widths": "no choice of width", "search": "nothing to search"}


def _check_work(stage: Stage, there_is: bool, work: str) -> None:
    if there_is:
        return
    kinds = [
        kind
        for kind, method in TABLES.items()
        if any(step["do"] == work or (work == "search" and step.get("search")) for step in method.recipe)
    ]
    raise ConfigError(
        f"stage {stage.name!r}: the tables of this run have {_WORK[work]}; methods that do: "
        f"{', '.join(sorted(kinds)) or 'none is installed'} (their features with at most exact_below ids do not), "
        "or leave the stage out"
    )
