"""Evolutionary search over widths: candidates are scored on validation rows, the best are kept, crossed and mutated.

Lyu et al., OptEmbed, CIKM 2022, section 3.3. Differs from the released code: parents are copied before they are
mutated, the best candidates so far are always among the parents, the crossover point lies between two tables, a
mutation may draw every width, and no candidate is scored twice.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

import numpy as np

from recembed.errors import ConfigError
from recembed.rows import Processes
from recembed.run.files import write_json
from recembed.training.stages import WidthsStage

__all__ = ["Genome", "WidthSearch"]

Genome = tuple[int, ...]
"""A width for each table."""


@dataclass
class WidthSearch:
    """One search; after every generation its state is written, and a search that was cut goes on from there.

    Candidates of generation ``g`` depend on the seed, on ``g`` and on the scores before it, and on nothing else.

    Attributes:
        stage: Its settings.
        choices: Widths to choose from, by table.
        score: Returns the AUC of a candidate.
        file: Where the state is kept.
        seed: Of the candidates.
        processes: Those that search together; rank 0 keeps the state.
        scores: The AUC of every candidate so far.
        generation: The next generation.
    """

    stage: WidthsStage
    choices: Mapping[str, tuple[int, ...]]
    score: Callable[[Genome], float]
    file: Path
    seed: int
    processes: Processes = field(default_factory=Processes)
    scores: dict[Genome, float] = field(default_factory=dict)
    generation: int = 0

    def run(self, told: Callable[[int, float], None], *, resume: bool) -> Genome:
        """Search to the end and return the best candidate; ``told`` hears each generation and the best AUC so far."""
        if resume:
            self.generation, self.scores = self.processes.first_does(self._loaded)
        while self.generation <= self.stage.generations and not self._exhausted:
            for candidate in self._candidates():
                if candidate not in self.scores:
                    self.scores[candidate] = self.score(candidate)
            self.generation += 1
            self._save()
            told(self.generation, self.scores[self.best[0]])
        return self.best[0]

    @property
    def best(self) -> list[Genome]:
        """All candidates so far, best first; of equal ones the narrower comes first."""
        return sorted(self.scores, key=lambda genome: (-self.scores[genome], sum(genome), genome))

    @property
    def _exhausted(self) -> bool:
        return len(self.scores) == prod(len(widths) for widths in self.choices.values())

    def _candidates(self) -> list[Genome]:
        random = np.random.default_rng([self.seed, self.generation])
        if self.generation == 0:
            widest = tuple(max(widths) for widths in self.choices.values())
            return [widest, *(self._drawn(random) for _ in range(self.stage.population - 1))]
        parents = self.best[: self.stage.keep]
        born = (self._crossed if place % 2 else self._mutated for place in range(self.stage.population))
        return [birth(parents, random) for birth in born]

    def _drawn(self, random: np.random.Generator) -> Genome:
        return tuple(int(random.choice(widths)) for widths in self.choices.values())

    def _mutated(self, parents: list[Genome], random: np.random.Generator) -> Genome:
        """Draw each width of one parent anew by chance, one of them in any case."""
        parent, drawn = parents[random.integers(len(parents))], self._drawn(random)
        changed = random.random(len(parent)) < self.stage.mutation
        changed[random.integers(len(parent))] = True
        return tuple(new if change else old for new, old, change in zip(drawn, parent, changed, strict=True))

    def _crossed(self, parents: list[Genome], random: np.random.Generator) -> Genome:
        """Take the first tables' widths of one parent and the others' of another."""
        if len(self.choices) < 2:
            return self._mutated(parents, random)
        first, second = (parents[int(place)] for place in random.integers(len(parents), size=2))
        point = int(random.integers(1, len(self.choices)))
        return first[:point] + second[point:]

    def _save(self) -> None:
        scores = [[list(genome), score] for genome, score in self.scores.items()]
        state = {"generation": self.generation, "tables": list(self.choices), "scores": scores}
        self.processes.first_does(lambda: write_json(self.file, state))

    def _loaded(self) -> tuple[int, dict[Genome, float]]:
        try:
            state = json.loads(self.file.read_text())
            return int(state["generation"]), {tuple(genome): float(score) for genome, score in state["scores"]}
        except FileNotFoundError:
            return 0, {}
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{self.file} is damaged ({error}); delete it to search again") from None
