"""``deep_hash``: no rows at all; many hashes of an id go through a network (DHE).

Kang et al., Learning to Embed Categorical Features without Embedding Tables for Recommendation, KDD 2021. Differs from
the paper: layer normalisation instead of batch normalisation, so that a vector does not depend on its batch; hashes are
the 64-bit mix of the house, of ids where there is a vocabulary; the last layer starts so that vectors have the scale
of plain rows; small fields keep exact tables.
Axes: ``k`` hashes, ``h`` width of a hidden layer, ``L`` hidden layers, ``D`` width of the vectors.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from recembed.hashing import mix64, salt
from recembed.tables.base import Table, TableConfig
from recembed.tables.each_once import each_once
from recembed.tables.full import FullTable
from recembed.tables.hashed_weights import hashed_weights
from recembed.tables.parameters import uniform_parameter
from recembed.tables.spec import TableSpec

__all__ = ["DeepHashConfig", "DeepHashTable"]

_STEP = 0x9E3779B97F4A7C15 - 2**64  # SplitMix64: the streams of one seed are this far apart
_MISH_RMS = 0.673  # root mean square of mish(x) for standard normal x


class DeepHashConfig(TableConfig):
    """A network per feature; bytes ``4 * (h(k + 1) + (L - 1) h(h + 1) + 2 L h + D(h + 1)) + 8``, no lookups.

    Features with a vocabulary are hashed by id, others by raw key. The network is trained by the dense optimiser.
    First-order weights are a hashed table of as many rows as the network at width 1 has numbers.

    Attributes:
        hashes: Inputs of the network (paper: 1024).
        layers: Hidden layers, each followed by layer normalisation and Mish.
        hidden: Their width; if None, the largest within ``ratio``, or 1 where even that is above it.
        ratio: Bytes as a share of the exact table's (0.25 if ``hidden`` is not given).
        exact_below: Features with at most this many ids keep an exact table.

    Raises:
        ConfigError: ``ratio`` for a feature without a vocabulary.

    >>> table = DeepHashConfig(hashes=32, layers=2, hidden=16).build([TableSpec("item", 5000, 8)], seed=0)["item"]
    >>> table.slots, table.decode([], torch.tensor([[3, 4, 5]])).shape, table.overhead_bytes
    ((), torch.Size([1, 3, 8]), 4008)
    """

    kind: Literal["deep_hash"] = "deep_hash"
    sized_by: ClassVar[str] = "hidden"
    hashes: Annotated[int, Field(ge=1, le=8192)] = 1024
    layers: Annotated[int, Field(ge=1, le=16)] = 5
    hidden: Annotated[int, Field(ge=1)] | None = None
    ratio: Annotated[float, Field(gt=0, le=1)] | None = None
    exact_below: Annotated[int, Field(ge=0)] = 100

    def build(self, specs: Sequence[TableSpec], seed: int) -> dict[str, Table]:
        """Build one network per spec; a feature that would not shrink keeps its exact table."""
        return {spec.name: self._build_one(spec, seed) for spec in specs}

    def _build_one(self, spec: TableSpec, seed: int) -> Table:
        ids = spec.num_embeddings
        if ids is not None and ids <= self.exact_below:
            return FullTable.of(spec)
        if spec.linear:
            return hashed_weights(spec, self._weights(spec), seed)
        hidden = self.hidden or self._solve(spec)
        if ids is not None and self._words(hidden, spec.embedding_dim) >= ids * spec.embedding_dim:
            return FullTable.of(spec)
        return DeepHashTable(spec, self.hashes, [hidden] * self.layers, seed)

    def _weights(self, spec: TableSpec) -> int:
        if self.hidden is not None:
            return self._words(self.hidden, spec.embedding_dim)
        return int(self._share * spec.known_ids("deep_hash"))

    @property
    def _share(self) -> float:
        return 0.25 if self.ratio is None else self.ratio

    def _words(self, hidden: int, width: int) -> int:
        first, middle = (self.hashes + 1) * hidden, (self.layers - 1) * hidden * (hidden + 1)
        return first + middle + 2 * self.layers * hidden + width * (hidden + 1) + 2

    def _solve(self, spec: TableSpec) -> int:
        """Return the largest hidden width within the ratio, at least 1."""
        budget = self._share * spec.known_ids("deep_hash") * spec.embedding_dim
        low, high = (
            1,
            max(1, int(budget)),
        )  # words(low) fits; words(high + 1) does not, as each hidden number costs some
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self._words(middle, spec.embedding_dim) <= budget else (low, middle - 1)
        return low


class DeepHashTable(Table):
    """Address: nothing. Decode: ``k`` hashes in ``(-1, 1)`` through the network.

    Args:
        spec: The feature; hashes and fresh weights are keyed by its name.
        hashes: ``k``.
        hidden: Width of each hidden layer.
        seed: Hashes and fresh weights depend on it.

    Shapes:
        ids: int64 ``[*S]``, ids of the vocabulary, or keys where there is none; vectors: float32 ``[*S, D]``.
    """

    def __init__(self, spec: TableSpec, hashes: int, hidden: Sequence[int], seed: int) -> None:
        super().__init__([], spec.embedding_dim)
        self.reads = "keys" if spec.num_embeddings is None else "ids"
        self.hashes = hashes
        self.register_buffer("salts", torch.tensor([salt(spec.name, "deep_hash", seed)], dtype=torch.int64))
        scale = spec.init.scale / (math.sqrt(3) if spec.init.law == "uniform" else 1.0)
        widths = [hashes, *hidden, spec.embedding_dim]
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for layer, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
            last = layer == len(hidden)
            std = scale / (_MISH_RMS * math.sqrt(inputs)) if last else 1 / math.sqrt(inputs)
            self.weights.append(uniform_parameter((outputs, inputs), std, spec.name, layer, seed))
            self.biases.append(nn.Parameter(torch.zeros(outputs)))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in hidden)

    def address(self, ids: Tensor) -> Tensor:
        """Return no addresses, ``[*S, 0]``."""
        return ids.new_empty((*ids.shape, 0))

    def hash_values(self, ids: Tensor) -> Tensor:
        """Return ``k`` numbers in ``(-1, 1)`` per id, float32 ``[*S, k]``: 24 bits each of a stream seeded by the id."""
        start = mix64(ids ^ self.get_buffer("salts")).unsqueeze(-1)  # [*S, 1]
        bits = mix64(start + _STEP * torch.arange(1, self.hashes + 1, device=ids.device)) >> 40  # [*S, k], 24 bits
        return (bits.float() + 0.5) / 2**23

    def decode(self, rows: Sequence[Tensor], ids: Tensor) -> Tensor:
        """Return the network's answer to the hashes; in training each id passes through it once."""
        if not self.training:
            return self._network(ids)
        distinct, _, place = each_once(ids)
        return F.embedding(place, self._network(distinct))

    def _network(self, ids: Tensor) -> Tensor:
        x = self.hash_values(ids)  # [*S, k]
        for weight, bias, norm in zip(self.weights, self.biases, self.norms, strict=False):
            x = F.mish(norm(F.linear(x, weight, bias)))  # [*S, h]
        return F.linear(x, self.weights[-1], self.biases[-1])  # [*S, D]
