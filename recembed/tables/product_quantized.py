"""``product_quantized``: each part of a vector is one of a few learned codewords (DPQ), fewer for rare ids (MGQE).

Chen, Li and Sun, Differentiable Product Quantization for End-to-End Embedding Compression, ICML 2020; codewords by
popularity from Kang et al., Learning Multi-granular Quantized Embeddings for Large-Vocab Categorical Features in
Recommender Systems, WWW 2020. Differs from the papers: in ``vq`` codewords also get the gradient of the task, which is
theirs exactly, beside that of the codebook loss; ``softmax`` has no batch normalisation of its logits, so that a vector
does not depend on its batch; served codes are packed at their real bits.
Axes: ``P`` parts, ``K`` codewords, ``w = D / P`` width of a codeword, ``D`` width of the vectors, ``n`` ids.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from recembed.errors import ConfigError
from recembed.rows import RowStore, RowTable
from recembed.tables.base import Table, TableConfig
from recembed.tables.each_once import each_once
from recembed.tables.full import FullTable
from recembed.tables.hashed_weights import hashed_weights
from recembed.tables.packed_codes import CodeLayout, PackedCodes, ServedCodewords, codewords
from recembed.tables.parameters import uniform_parameter
from recembed.tables.popularity import PopularityRank, popularity_order
from recembed.tables.spec import TableSpec

__all__ = ["ProductQuantizedConfig", "ProductQuantizedTable"]

_CHUNK = 2**14  # ids whose codes are computed at a time


class ProductQuantizedConfig(TableConfig):
    """Served bytes ``n * P * log2(K) / 8 + 4 * K * D``: codes, packed at ``log2(K)`` bits rounded up, and codebook.

    With ``frequent_share`` the codes of rare ids are ``log2(K')`` bits each; a vocabulary that has grown adds 4 bytes
    per id for their ranks. Training saves nothing: it keeps a float32 row per id, and a lookup scores ``P * K`` codewords.
    First-order weights are a hashed table with the same share of its exact bytes.

    Attributes:
        variant: ``vq`` takes the nearest codeword of each part, ``softmax`` the one whose key fits best.
        codewords: ``K`` of each part.
        parts: ``P``, a divisor of ``embedding_dim``.
        ratio: Bytes as a share of the exact table's (0.25 if neither ``codewords`` nor ``parts`` is given); what is not
            given of the two is chosen for the most bits per id within it, fewest parts first.
        frequent_share: Share of the ids, most frequent first, that may use every codeword; None treats all alike.
        rare_codewords: ``K'``, the first codewords of each part, for the other ids (a quarter of ``K`` by default).
        temperature: Of the softmax.
        commitment: Weight of the loss that pulls rows to their codewords.
        exact_below: Features with at most this many ids keep an exact table.

    Raises:
        ConfigError: ``parts`` does not divide ``embedding_dim``; nothing fits into ``ratio``; ``frequent_share`` for a
            feature without counts; a feature has no vocabulary.

    >>> table = ProductQuantizedConfig(codewords=32, parts=4).build([TableSpec("item", 1000, 8)], seed=0)["item"]
    >>> table.served_rows, table.served_overhead_bytes  # 4 * 5 bits an id
    ({'item': 2502}, 1024)
    """

    kind: Literal["product_quantized"] = "product_quantized"
    variant: Literal["vq", "softmax"] = "vq"
    codewords: Annotated[int, Field(ge=2, le=65536)] | None = None
    parts: Annotated[int, Field(ge=1)] | None = None
    ratio: Annotated[float, Field(gt=0, le=1)] | None = None
    frequent_share: Annotated[float, Field(gt=0, lt=1)] | None = None
    rare_codewords: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(gt=0)] = 1.0
    commitment: Annotated[float, Field(ge=0)] = 0.25
    exact_below: Annotated[int, Field(ge=0)] = 100

    @model_validator(mode="after")
    def _check(self) -> "ProductQuantizedConfig":
        if self.codewords is not None and self.parts is not None and self.ratio is not None:
            raise ValueError("codewords, parts and ratio are all given; keep two of them")
        if self.rare_codewords is not None and self.frequent_share is None:
            raise ValueError("rare_codewords needs frequent_share, the share of the ids that use all codewords")
        if self.rare_codewords is not None and self.rare_codewords > (self.codewords or 65536):
            raise ValueError(f"rare_codewords = {self.rare_codewords}: expected at most codewords = {self.codewords}")
        return self

    def resized(self, ratio: float) -> "ProductQuantizedConfig":
        """Return these settings with ``ratio``, or themselves where both ``codewords`` and ``parts`` are fixed."""
        fixed = self.codewords is not None and self.parts is not None
        return self if fixed else self.model_copy(update={"ratio": ratio})

    def build(self, specs: Sequence[TableSpec], seed: int) -> dict[str, Table]:
        """Build one table per spec; a feature that would not shrink keeps its exact table."""
        return {spec.name: self._build_one(spec, seed) for spec in specs}

    def _build_one(self, spec: TableSpec, seed: int) -> Table:
        ids, width = spec.known_ids(self.kind), spec.vector_dim if spec.linear else spec.embedding_dim
        if ids <= self.exact_below or width is None:
            return FullTable.of(spec)
        rank = None if self.frequent_share is None else PopularityRank(popularity_order(spec, self.kind))
        plan = self._plan(spec, width, 0 if rank is None else sum(ranks.nbytes for ranks in rank.buffers()))
        if plan.bytes >= 4 * ids * width:
            return FullTable.of(spec)
        if spec.linear:
            return hashed_weights(spec, int(plan.bytes / (4 * width)), seed)
        return ProductQuantizedTable(spec, plan, rank, self, seed)

    def _plan(self, spec: TableSpec, width: int, rank_bytes: int) -> "_Plan":
        """Return the sizes given, or those with the most bits within the ratio."""
        ids = spec.known_ids(self.kind)
        divisors = [parts for parts in range(1, width + 1) if width % parts == 0]
        if self.parts is not None and self.parts not in divisors:
            raise ConfigError(
                f"feature {spec.name!r}: parts = {self.parts} does not divide embedding_dim = {width}; "
                f"choose parts from {divisors}, or another embedding_dim"
            )
        share = 1.0 if self.frequent_share is None else self.frequent_share
        frequent = min(max(round(share * ids), spec.reserved_ids), ids)
        plans = [
            _Plan(ids, width, parts, words, frequent, self._rare(words), rank_bytes)
            for parts in ([self.parts] if self.parts else divisors)
            for words in ([self.codewords] if self.codewords else [2**bits for bits in range(1, 9)])
        ]
        if len(plans) == 1:
            return plans[0]
        ratio = 0.25 if self.ratio is None else self.ratio
        fitting = [plan for plan in plans if plan.bytes <= ratio * 4 * ids * width]
        if not fitting:
            least = min(plan.bytes for plan in plans) / (4 * ids * width)
            raise ConfigError(
                f"feature {spec.name!r}: ratio = {ratio} is less than the smallest codes and codebook take, {least:.4f}; "
                f"set a ratio of that or more, or exact_below: {ids}"
            )
        return max(fitting, key=lambda plan: (plan.layout.all_bits, -plan.parts))

    def _rare(self, words: int) -> int:
        if self.frequent_share is None:
            return words
        return min(words, max(2, words // 4) if self.rare_codewords is None else self.rare_codewords)


@dataclass(frozen=True, slots=True)
class _Plan:
    """Sizes of one feature."""

    ids: int
    embedding_dim: int
    parts: int
    words: int
    frequent: int
    rare_words: int
    rank_bytes: int

    @property
    def layout(self) -> CodeLayout:
        bits, rare_bits = ((words - 1).bit_length() for words in (self.words, self.rare_words))
        return CodeLayout(self.ids, self.parts, bits, self.frequent, rare_bits)

    @property
    def codebook_bytes(self) -> int:
        return 4 * self.words * self.embedding_dim

    @property
    def bytes(self) -> int:
        return self.layout.bytes + self.codebook_bytes + self.rank_bytes


class ProductQuantizedTable(Table):
    """Address: the id. Decode: for each part of the row, the codeword that it chooses; the row learns straight through.

    Args:
        spec: The feature.
        plan: Its sizes.
        rank: Rank of an id by training count; None where all ids use all codewords.
        config: Variant, temperature and weight of the commitment loss.
        seed: Fresh codewords depend on it.

    Shapes:
        ids: int64 ``[*S]``, each below ``num_embeddings``; vectors: float32 ``[*S, D]``.
    """

    keys: nn.Parameter | None

    def __init__(
        self, spec: TableSpec, plan: _Plan, rank: PopularityRank | None, config: ProductQuantizedConfig, seed: int
    ) -> None:
        super().__init__([RowTable(spec.table_name(), plan.ids, spec.embedding_dim, spec.init)], spec.embedding_dim)
        self.plan = plan
        self.rank = rank
        self.temperature = config.temperature
        self.commitment = config.commitment
        self._shape = (plan.parts, spec.embedding_dim // plan.parts)
        shape = (plan.parts, plan.words, self._shape[1])
        std = spec.init.scale / (3**0.5 if spec.init.law == "uniform" else 1.0)
        self.codebook = uniform_parameter(shape, std, spec.name, "codebook", seed)
        keys = uniform_parameter(shape, 1.0, spec.name, "keys", seed) if config.variant == "softmax" else None
        self.register_parameter("keys", keys)

    @property
    def served_rows(self) -> dict[str, int]:
        """Planned bytes of the packed codes."""
        return {self.slots[0].name: self.plan.layout.bytes}

    @property
    def served_overhead_bytes(self) -> int:
        """Planned bytes of the codebook, and of ranks where there are any."""
        return self.plan.codebook_bytes + self.plan.rank_bytes

    def address(self, ids: Tensor) -> Tensor:
        """Return ``ids`` with a slot axis."""
        return ids.unsqueeze(-1)

    def scores(self, rows: Tensor, ids: Tensor, part: int) -> Tensor:
        """Return how well each codeword of a part fits: float64 ``[N, K]``, minus infinity for what an id may not use.

        Double precision, so that the choice does not depend on the size of the batch.
        """
        keys = (self.codebook.detach() if self.keys is None else self.keys)[part].double()  # [K, w]
        scores = rows.view(-1, *self._shape)[:, part].double() @ keys.T
        if self.keys is None:
            scores = 2 * scores - keys.square().sum(-1)  # minus the squared distance, but for |query|**2
        if self.rank is None:
            return scores
        rare = (self.rank(ids) >= self.plan.frequent).unsqueeze(-1)
        beyond = torch.arange(self.plan.words, device=ids.device) >= self.plan.rare_words  # [K]
        return scores.masked_fill(rare & beyond, -torch.inf)

    @torch.no_grad()
    def codes(self, rows: Tensor, ids: Tensor) -> Tensor:
        """Return the codeword that each part of ``rows`` ``[N, D]`` chooses, int64 ``[N, P]``."""
        parts = range(self._shape[0])
        return torch.stack([self.scores(rows, ids, part).argmax(-1) for part in parts], dim=-1)

    def decode(self, rows: Sequence[Tensor], ids: Tensor) -> Tensor:
        """Return the chosen codewords side by side; in training with the gradient of the row, and the codebook loss."""
        if not self.training:
            chosen = codewords(self.codebook, self.codes(rows[0].flatten(0, -2), ids.flatten()))  # [N, P, w]
            return chosen.view(*ids.shape, -1)
        distinct, (own,), place = each_once(ids, rows)
        if self.keys is None:
            return self._straight_through(rows[0], self.codes(own, distinct)[place])
        return F.embedding(place, self._softly(own, distinct))

    def _straight_through(self, rows: Tensor, codes: Tensor) -> Tensor:
        """Return the chosen codewords with the gradient of the rows, and add the losses of both."""
        chosen = codewords(self.codebook, codes)  # [*S, P, w]
        rows = rows.view(chosen.shape)
        pairs = max(self.processes.span(codes[..., 0].numel())[1], 1) * self.processes.share
        self.add_loss((chosen - rows.detach()).square().sum() / pairs)
        self.add_loss(self.commitment * (chosen.detach() - rows).square().sum() / pairs)
        return (chosen + (rows - rows.detach())).flatten(-2)

    def _softly(self, rows: Tensor, ids: Tensor) -> Tensor:
        """Return the codewords with the best keys, ``[U, D]``, with the gradient of their weighted mean."""
        parts = []
        for part, words in enumerate(self.codebook):
            scores = self.scores(rows, ids, part)  # [U, K]
            soft = (scores / self.temperature).softmax(-1).to(words.dtype)
            mean = soft @ words.detach()  # [U, w]
            parts.append(F.embedding(scores.argmax(-1), words) + (mean - mean.detach()))
        return torch.cat(parts, dim=-1)

    @torch.no_grad()
    def compact(self, store: RowStore) -> Table:
        """Return codes and codebook; its vectors are those of evaluation."""
        self.take_losses()  # of a step that is over
        device, name = self.codebook.device, self.slots[0].name
        codes = PackedCodes(self.plan.layout).to(device)
        for ids in torch.split(torch.arange(self.plan.ids, device=device), _CHUNK):
            codes.write(ids if self.rank is None else self.rank(ids), self.codes(store.read_rows(name, ids), ids))
        return ServedCodewords(self.codebook, codes, self.rank)
