"""Content vectors → vectors that also know who consumes what: collaborative alignment (SAIL-Embedding).

ByteDance, SAIL-Embedding Technical Report: Omni-modal Embedding Foundation Model, 2025. Two signals are distilled into a
projection of frozen content vectors. Sequence to item: the mean vector of what a user consumed is contrasted with what came
next. Id to item: an item's vector is contrasted with what a learned matrix makes of its id's vector in a trained ranker.
Both teachers are cut off from the gradient, each loss has its own temperature, an item that the ranker does not know has
no part in the second, and the popularity of items as negatives of the first is corrected by their logarithm.
The report's abstract names the two signals and not their form; the form is this file's, as are the third term,
which keeps vectors near their content, and the step from the content vectors (a residual that starts at zero).
Axes: ``N`` items, ``B`` of a step, ``L`` items of a history, ``W`` width of content, ``D`` of the result, ``E`` of ids.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional as F

from recembed.errors import ConfigError, DataError
from recembed.items.alignment_data import Histories
from recembed.items.given import GivenVectors

__all__ = ["Aligner", "AlignmentConfig", "Teacher", "train_alignment"]


class AlignmentConfig(BaseModel):
    """The projection and its training.

    Attributes:
        embedding_dim: Width of the result: the content's directions of the greatest spread; None keeps them all.
        hidden: Width of the hidden layer.
        sequence_temperature, id_temperature: Of the two losses.
        sequence_weight, id_weight: Of the two losses; 0 leaves one out.
        content_weight: Of one minus the cosine between an item's vector and its content; less moves vectors further.
        popularity_power: Scores of items as negatives are lowered by this times the logarithm of their share of all rows.
        longest_history: Last items of a history that are read.
        epochs: Over all next items.
        batch_size: Next items per step, and items per step of the other two terms.
        learning_rate: Of AdamW.
        seed: Fresh weights and order depend on it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    embedding_dim: Annotated[int, Field(ge=1)] | None = None
    hidden: Annotated[int, Field(ge=1)] = 256
    sequence_temperature: Annotated[float, Field(gt=0)] = 0.1
    id_temperature: Annotated[float, Field(gt=0)] = 0.2
    sequence_weight: Annotated[float, Field(ge=0)] = 1.0
    id_weight: Annotated[float, Field(ge=0)] = 1.0
    content_weight: Annotated[float, Field(ge=0)] = 5.0
    popularity_power: Annotated[float, Field(ge=0)] = 1.0
    longest_history: Annotated[int, Field(ge=1)] = 20
    epochs: Annotated[int, Field(ge=1)] = 5
    batch_size: Annotated[int, Field(ge=2)] = 512
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Teacher:
    """Vectors of ids from a trained model, laid out along a catalogue.

    Shapes:
        vectors: float32 ``[N, E]``, of length 1, so that an item's popularity is not told by its length; known: bool
        ``[N]``, False where the model has no vector of its own for the id.
    """

    vectors: Tensor
    known: Tensor

    @classmethod
    def of(cls, ids: GivenVectors, keys: np.ndarray) -> "Teacher":
        """Lay out vectors by raw id (say, those that an export wrote) along the keys of a catalogue, ascending.

        Raises:
            DataError: not one item of the catalogue has a vector.
        """
        place = np.searchsorted(ids.keys, keys).clip(max=len(ids.keys) - 1)
        known = ids.keys[place] == keys
        if not known.any():
            raise DataError(
                f"not one of the {len(keys):,} items has a vector of its id; are these ids of the same items?"
            )
        vectors = torch.from_numpy(np.array(ids.vectors[ids.rows[place]], np.float32))
        return cls(
            F.normalize(torch.where(torch.from_numpy(known)[:, None], vectors, 0.0), dim=1), torch.from_numpy(known)
        )


class Aligner(nn.Module):
    """The projection of content vectors, and the matrix from the space of ids.

    Args:
        content: float32 ``[N, W]``, frozen; the directions of greatest spread are taken from it.
        config: The projection.
        id_width: Width of the teacher's vectors, 0 without one.

    Shapes:
        content: float32 ``[*S, W]``. Returns float32 ``[*S, D]``, of length 1.
    """

    def __init__(self, content: Tensor, config: AlignmentConfig, id_width: int = 0) -> None:
        super().__init__()
        width = content.shape[1]
        dim = config.embedding_dim or width
        if dim > width:
            raise ConfigError(f"embedding_dim = {dim}: the content is {width} wide; expected 1..{width}")
        self.config = config
        self.register_buffer("base", _directions(content, dim))
        self.hidden = nn.Linear(width, config.hidden)
        self.output = nn.Linear(config.hidden, dim, bias=False)
        nn.init.zeros_(self.output.weight)
        self.head = nn.Linear(id_width, dim, bias=False) if id_width else None

    def start(self, content: Tensor) -> Tensor:
        """Return the content in the space of the result, of length 1."""
        return F.normalize(F.linear(F.normalize(content, dim=-1), self.get_buffer("base")), dim=-1)

    def forward(self, content: Tensor) -> Tensor:
        """Align."""
        moved: Tensor = self.output(F.gelu(self.hidden(F.normalize(content, dim=-1))))
        return F.normalize(self.start(content) + moved, dim=-1)

    @torch.no_grad()
    def interests(self, content: Tensor, histories: Tensor) -> Tensor:
        """Return the mean vectors of histories, float32 ``[B, D]``, of length 1 and without gradient.

        Shapes:
            content: float32 ``[N, W]``; histories: int64 ``[B, L]``, places in it, -1 where there is none.
        """
        items, places = histories.unique(return_inverse=True)  # type: ignore[no-untyped-call]
        vectors = torch.where((items >= 0).unsqueeze(-1), self(content[items.clamp(min=0)]), 0.0)
        return F.normalize(F.embedding(places, vectors).sum(1), dim=-1)

    def sequence_loss(self, interests: Tensor, nexts: Tensor, items: Tensor, log_share: Tensor) -> Tensor:
        """Return the loss of telling each next item from those of other rows by the interest before it, a scalar.

        Shapes:
            interests: float32 ``[B, D]``; nexts: float32 ``[B, W]``, content of the next items; items: int64 ``[B]``,
            which they are; log_share: float32 ``[B]``, of all rows.
        """
        scores = interests.detach() @ self(nexts).T / self.config.sequence_temperature  # [B, B]
        scores = scores - self.config.popularity_power * log_share
        return F.cross_entropy(_without_doubles(scores, items), torch.arange(len(items), device=scores.device))

    def id_loss(self, content: Tensor, teacher: Tensor, known: Tensor) -> Tensor:
        """Return the loss of telling each item's id vector from those of others; unknown ids take no part.

        Shapes:
            content: float32 ``[B, W]`` of distinct items; teacher: float32 ``[B, E]``; known: bool ``[B]``. Returns a scalar.
        """
        assert self.head is not None  # it was built with id_width
        targets = F.normalize(self.head(teacher.detach()), dim=-1)  # [B, D]
        scores = self(content) @ targets.T / self.config.id_temperature  # [B, B]
        scores = scores.masked_fill(~known, float("-inf"))
        own = scores.diagonal().masked_fill(~known, 0.0)
        losses = torch.where(known, scores.masked_fill(~known.any(), 0.0).logsumexp(1) - own, 0.0)
        mean: Tensor = losses.sum() / known.sum().clamp(min=1)
        return mean

    def content_loss(self, content: Tensor) -> Tensor:
        """Return the mean of one minus the cosine between items' vectors and their content, a scalar."""
        loss: Tensor = 1 - (self(content) * self.start(content)).sum(-1).mean()
        return loss

    @torch.no_grad()
    def vectors(self, content: np.ndarray) -> np.ndarray:
        """Return the aligned vectors of content, float32 ``[N, D]``; items may be new."""
        found: np.ndarray = self(torch.from_numpy(np.ascontiguousarray(content, np.float32))).numpy()
        return found


def _directions(content: Tensor, dim: int) -> Tensor:
    """Return ``[D, W]``: the identity, or the orthonormal directions of greatest spread."""
    if dim == content.shape[1]:
        return torch.eye(dim)
    unit = F.normalize(content, dim=1).double()
    vectors: Tensor = torch.linalg.eigh(unit.T @ unit).eigenvectors
    return vectors[:, -dim:].flip(1).T.float()


def _without_doubles(scores: Tensor, items: Tensor) -> Tensor:
    """Take from each row the other places of its own item: they are no negatives."""
    same: Tensor = (items == items.unsqueeze(1)).fill_diagonal_(False)
    return scores.masked_fill(same, float("-inf"))


def train_alignment(
    content: np.ndarray, histories: Histories, teacher: Teacher | None = None, config: AlignmentConfig | None = None
) -> Aligner:
    """Train on histories of the items whose content is given, and on the vectors of their ids.

    Args:
        content: Frozen vectors, float32 ``[N, W]``.
        histories: By places in ``content``; from training rows alone.
        teacher: Vectors of ids, by the same places; None leaves the second loss out.
        config: Settings.

    Raises:
        DataError: a content vector is not finite, or no user consumed two items.

    >>> import polars as pl
    >>> items = pl.Series("film", [1, 2, 3])
    >>> seen = pl.DataFrame({"user": [7, 7, 8, 8], "film": [1, 2, 2, 1]})
    >>> histories = Histories.of(seen, items, user="user", item="film")
    >>> train_alignment(np.eye(3, dtype=np.float32), histories).vectors(np.eye(3)).shape
    (3, 3)
    """
    config = config or AlignmentConfig()
    if broken := int((~np.isfinite(content)).any(axis=1).sum()):
        raise DataError(f"{broken:,} content vectors hold NaN or infinity; leave these items out")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        run = _Training(torch.from_numpy(np.ascontiguousarray(content, np.float32)), histories, teacher, config)
        for _ in range(config.epochs):
            for steps in torch.split(torch.randperm(len(run.nexts)), config.batch_size):
                run.step(steps)
    return run.model.eval()


class _Training:
    """One training on its way."""

    def __init__(self, content: Tensor, histories: Histories, teacher: Teacher | None, config: AlignmentConfig) -> None:
        before, nexts = histories.steps(config.longest_history)
        if not len(nexts):
            raise DataError("no user consumed two items, so there is no next item to learn from")
        self.content, self.teacher, self.config = content, teacher, config
        self.before, self.nexts = torch.from_numpy(before), torch.from_numpy(nexts)
        share = torch.from_numpy(np.bincount(nexts, minlength=len(content)) / len(nexts))
        self.log_share = share.clamp(min=1e-12).log().float()
        self.model = Aligner(content, config, 0 if teacher is None else teacher.vectors.shape[1])
        self.optimizer = torch.optim.AdamW(self.model.parameters(), config.learning_rate)

    def step(self, steps: Tensor) -> None:
        """Go down the sum of the losses once."""
        config, model, places = self.config, self.model, torch.randperm(len(self.content))[: self.config.batch_size]
        loss = config.content_weight * model.content_loss(self.content[places])
        if config.sequence_weight:
            nexts = self.nexts[steps]
            interests = model.interests(self.content, self.before[steps])
            parts = self.content[nexts], nexts, self.log_share[nexts]
            loss = loss + config.sequence_weight * model.sequence_loss(interests, *parts)
        if config.id_weight and self.teacher is not None:
            known, vectors = self.teacher.known[places], self.teacher.vectors[places]
            loss = loss + config.id_weight * model.id_loss(self.content[places], vectors, known)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
