"""The work of each kind of stage: train, search widths, settle."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from recembed.config import RunConfig
from recembed.data import EncodedData, Loader
from recembed.evaluation import auc
from recembed.evaluation.checks import check_rows
from recembed.evaluation.evaluate import point_metrics
from recembed.models import CTRModel
from recembed.rows import Processes
from recembed.run.build import embedding_of
from recembed.run.evolution import Genome, WidthSearch
from recembed.run.parts import training_loader, validation_loader
from recembed.run.stage_folder import StageFolder
from recembed.schema.fitted import FittedSchema
from recembed.tables import Table
from recembed.training import BilevelSearch, Tracker, Trainer, TrainResult
from recembed.training.bilevel import frozen
from recembed.training.predictions import gathered_logits
from recembed.training.stages import Stage, TrainStage, WidthsStage
from recembed.training.state import seed_everything

__all__ = ["StageWork", "carry_decisions"]

Found = dict[str, dict[str, float]]

_SCORED_ROWS = 8192  # at least so many rows a batch where nothing is trained


@dataclass(frozen=True)
class StageWork:
    """What stages work with.

    Attributes:
        config: The effective config of the run.
        stages: All stages of the run.
        fitted: Its mapping.
        parts: Its encoded rows.
        progress: Show a progress bar; None shows it on a terminal only.
        processes: Those that do the stages together.
        build: Builds a model with fresh weights.
    """

    config: RunConfig
    stages: Sequence[Stage]
    fitted: FittedSchema
    parts: dict[str, EncodedData]
    progress: bool | None
    processes: Processes
    build: Callable[[RunConfig], CTRModel]

    def train(
        self, stage: TrainStage, model: CTRModel, folder: StageFolder, tracker: Tracker, *, resume: bool
    ) -> tuple[CTRModel, TrainResult]:
        """Train ``model``, or a fresh one under its decisions; return which, and how it went."""
        settings = stage.settings(self.config.training)
        model = model if stage.start == "keep" else self._rebuilt(model, other_seed=stage.start == "fresh")
        self._set_row_learning_rate(model, stage.row_learning_rate)
        checkpoints = folder.checkpointer(self.fitted, self.config)
        searched = self._searched(model)
        valid = self.parts["valid"]
        search = None
        if stage.search and searched:
            rank, count = self.processes.rank, self.processes.count
            other = Loader(valid, settings.batch_size, shuffle=True, seed=settings.seed, rank=rank, world_size=count)
            search = BilevelSearch(searched, other)
        with frozen(searched):
            device = embedding_of(model).device
            trained = Trainer(model, settings, tracker=tracker, device=device, progress=self.progress).fit(
                training_loader(self.parts["train"], settings, self.processes),
                validation_loader(valid, settings, self.processes),
                checkpoint=checkpoints,
                resume=resume,
                search=search,
            )
        if stage.weights == "last" and trained.stopped != "interrupted":
            checkpoints.load_last(model)
            checkpoints.keep_last_as_best()
            checkpoints.flush()
            checkpoints.close()
        return model, trained

    def widths(
        self, stage: WidthsStage, model: CTRModel, folder: StageFolder, tracker: Tracker, *, resume: bool
    ) -> Found:
        """Search widths with all weights as they are, and choose the best; return them."""
        tables = _with_widths(model)

        def choose(genome: Genome) -> None:
            for table, width in zip(tables.values(), genome, strict=True):
                table.choose_width(width)

        def score(genome: Genome) -> float:
            choose(genome)
            with _as_settled(model):
                return auc(*self._predictions(model))

        choices = {name: table.width_choices() for name, table in tables.items()}
        file = folder.path / "widths.json"
        search = WidthSearch(stage, choices, score, file, self.config.training.seed, self.processes)
        best = search.run(lambda generation, value: tracker.log({"search/auc": value}, generation), resume=resume)
        choose(best)
        return {name: {"width": float(width)} for name, width in zip(tables, best, strict=True)}

    def settle(self, model: CTRModel) -> Found:
        """Let every table settle; return what they found."""
        seed_everything(self.config.training.seed)
        embedding = embedding_of(model)
        with torch.no_grad():
            return {name: table.settle(embedding.store) for name, table in embedding.all_tables().items()}

    def valid_metrics(self, model: CTRModel) -> dict[str, float]:
        """Return the metrics of the validation rows as settled tables serve them, none where there are no such rows."""
        if not len(self.parts["valid"]):
            return {}
        with _as_settled(model):
            return point_metrics(*check_rows(*self._predictions(model), "logits"))[0]

    def _predictions(self, model: CTRModel) -> tuple[np.ndarray, np.ndarray]:
        rows = max(self.config.training.batch_size, _SCORED_ROWS)  # a width search scores hundreds of candidates
        settings = self.config.training.model_copy(update={"batch_size": rows})
        loader = validation_loader(self.parts["valid"], settings, self.processes)
        return gathered_logits(model, loader or (), self.processes, embedding_of(model).device)

    def _searched(self, model: CTRModel) -> list[nn.Parameter]:
        """Return what no training may move but a search, in a run that has one."""
        if not any(isinstance(stage, TrainStage) and stage.search for stage in self.stages):
            return []
        tables = embedding_of(model).all_tables().values()
        return list({id(p): p for table in tables for p in table.search_parameters()}.values())

    def _rebuilt(self, model: CTRModel, *, other_seed: bool) -> CTRModel:
        training = self.config.training
        training = training.model_copy(update={"seed": (training.seed + other_seed) % 2**32})
        fresh = self.build(self.config.model_copy(update={"training": training}))
        before = embedding_of(model).all_tables()
        for name, table in embedding_of(fresh).all_tables().items():
            carry_decisions(before[name], table)
        return fresh

    def _set_row_learning_rate(self, model: CTRModel, learning_rate: float | None) -> None:
        rule = self.config.embeddings.row_optimizer
        store = embedding_of(model).store
        store.optimizer = rule if learning_rate is None else rule.model_copy(update={"learning_rate": learning_rate})


def _with_widths(model: CTRModel) -> dict[str, Table]:
    return {name: table for name, table in embedding_of(model).all_tables().items() if table.width_choices()}


@contextmanager
def _as_settled(model: CTRModel) -> Iterator[None]:
    """Let tables with a choice of width be in here what they would settle on: under a ratio, a narrow width keeps more."""
    tables, store = _with_widths(model).values(), embedding_of(model).store
    before = [{name: values.clone() for name, values in table.named_buffers()} for table in tables]
    with torch.no_grad():
        for table in tables:
            table.settle(store)
    try:
        yield
    finally:
        for table, buffers in zip(tables, before, strict=True):
            for name, values in buffers.items():
                table.get_buffer(name).copy_(values)


@torch.no_grad()
def carry_decisions(source: Table, target: Table) -> None:
    """Copy what a table decided and counted, its saved buffers; parameters and rows are left as they are."""
    parameters = {name for name, _ in source.named_parameters()}
    buffers = dict(target.named_buffers())
    for name, values in source.state_dict().items():
        if name not in parameters:
            buffers[name].copy_(values)
