"""Tables of attributes → vectors by an autoencoder whose encoder is kept from stretching its input (DeepCAE).

Bertrand et al., Autoencoder-based General Purpose Representation Learning for Customer Embedding, 2024. The penalty is the
squared Frobenius norm of the Jacobian of the whole encoder, not of each layer: exact, or as Hutchinson's estimate
``E |J^T v|^2`` over random signs ``v``. Differs from the paper: hyperbolic tangents in every layer of the encoder, and
inputs are standardised inside.
Axes: ``B`` rows, ``W`` columns, ``h`` width of a layer, ``D`` width of the vectors.
"""

import itertools
from typing import Annotated, Literal, cast

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from recembed.errors import DataError

__all__ = ["DeepCAE", "DeepCAEConfig", "train_deep_cae"]


class DeepCAEConfig(BaseModel):
    """The network and its training.

    Attributes:
        embedding_dim: Width of the vectors.
        hidden: Widths of the encoder's hidden layers; the decoder has them in reverse.
        contraction: Weight of the penalty; 0 is a plain autoencoder.
        penalty: ``exact`` costs ``W`` times a step's memory, ``hutchinson`` one backward pass per probe.
        probes: Random vectors per step of ``hutchinson``.
        epochs: Over all rows.
        batch_size: Rows per step.
        learning_rate: Of Adam.
        seed: Fresh weights, order and probes depend on it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    embedding_dim: Annotated[int, Field(ge=1)] = 16
    hidden: tuple[Annotated[int, Field(ge=1)], ...] = (64,)
    contraction: Annotated[float, Field(ge=0)] = 0.01
    penalty: Literal["exact", "hutchinson"] = "hutchinson"
    probes: Annotated[int, Field(ge=1)] = 1
    epochs: Annotated[int, Field(ge=1)] = 20
    batch_size: Annotated[int, Field(ge=1)] = 256
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    seed: int = 0


class DeepCAE(nn.Module):
    """Encoder and decoder.

    Args:
        width: Columns of the table.
        config: The network.

    Shapes:
        x: float32 ``[B, W]``, standardised. Vectors: float32 ``[B, D]``.
    """

    def __init__(self, width: int, config: DeepCAEConfig) -> None:
        super().__init__()
        inner = [width, *config.hidden, config.embedding_dim]
        self.encoder = nn.ModuleList(nn.Linear(i, o) for i, o in itertools.pairwise(inner))
        outer = inner[::-1]
        self.decoder = nn.ModuleList(nn.Linear(i, o) for i, o in itertools.pairwise(outer))
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))

    def encode(self, x: Tensor) -> Tensor:
        """Return the vectors of standardised rows."""
        for layer in self.encoder:
            x = torch.tanh(layer(x))  # [B, h]
        return x

    def decode(self, vectors: Tensor) -> Tensor:
        """Return the rows that vectors stand for, ``[B, W]``."""
        for place, layer in enumerate(self.decoder):
            vectors = layer(vectors)
            if place + 1 < len(self.decoder):
                vectors = torch.tanh(vectors)
        return vectors

    def exact_penalty(self, x: Tensor) -> Tensor:
        """Return ``|J|_F^2`` of each row, ``[B]``: the product of ``diag(1 - tanh^2) W`` over the layers."""
        jacobian: Tensor | None = None  # [B, h, W]
        for layer in self.encoder:
            linear = cast(nn.Linear, layer)
            x = torch.tanh(linear(x))
            slope = (1 - x.square()).unsqueeze(-1)  # [B, h, 1]
            step = linear.weight if jacobian is None else linear.weight @ jacobian
            jacobian = slope * step
        assert jacobian is not None
        return jacobian.square().sum((1, 2))

    def estimated_penalty(self, x: Tensor, probes: Tensor) -> Tensor:
        """Return Hutchinson's estimate of ``|J|_F^2`` of each row, ``[B]``, from signs ``[K, B, D]``."""
        x = x.detach().requires_grad_()
        vectors = self.encode(x)
        total = x.new_zeros(len(x))
        for signs in probes:
            (gradient,) = torch.autograd.grad(vectors, x, signs, create_graph=True)
            total = total + gradient.square().sum(1)
        return total / len(probes)

    @torch.no_grad()
    def vectors(self, table: np.ndarray) -> np.ndarray:
        """Return the vectors of raw rows, float32 ``[N, D]``."""
        x = torch.from_numpy(_checked(table))
        found: np.ndarray = self.encode((x - self.get_buffer("mean")) / self.get_buffer("std")).numpy()
        return found


def train_deep_cae(table: np.ndarray, config: DeepCAEConfig | None = None) -> DeepCAE:
    """Train on the rows of a table of numbers (one-hot columns for categories), float ``[N, W]``.

    The loss is ``|x - g(f(x))|^2 + contraction |J|_F^2``, averaged over rows.

    Raises:
        DataError: a number is missing or infinite.
    """
    config = config or DeepCAEConfig()
    rows = torch.from_numpy(_checked(table))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = DeepCAE(rows.shape[1], config)
        model.get_buffer("mean").copy_(rows.mean(0))
        spread = rows.std(0, correction=0)
        model.get_buffer("std").copy_(torch.where(spread > 0, spread, 1.0))
        rows = (rows - model.get_buffer("mean")) / model.get_buffer("std")
        optimizer = torch.optim.Adam(model.parameters(), config.learning_rate)
        for _ in range(config.epochs):
            for batch in torch.split(rows[torch.randperm(len(rows))], config.batch_size):
                loss = (model.decode(model.encode(batch)) - batch).square().sum(1).mean()
                if config.contraction:
                    loss = loss + config.contraction * _penalty(model, batch, config).mean()
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
    return model.eval()


def _penalty(model: DeepCAE, batch: Tensor, config: DeepCAEConfig) -> Tensor:
    if config.penalty == "exact":
        return model.exact_penalty(batch)
    signs = torch.randint(0, 2, (config.probes, len(batch), config.embedding_dim)).to(batch.dtype) * 2 - 1
    return model.estimated_penalty(batch, signs)


def _checked(table: np.ndarray) -> np.ndarray:
    broken = ~np.isfinite(table)
    if broken.any():
        row, column = np.argwhere(broken)[0]
        raise DataError(
            f"row {row}, column {column} is missing or infinite ({int(broken.sum()):,} such cells); "
            "fill them, and mark them in a column of their own"
        )
    return np.ascontiguousarray(table, np.float32)
