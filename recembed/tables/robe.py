"""``robe``: every vector is made of chunks of one array that all features share.

Desai, Chou and Shrivastava, Random Offset Block Embedding (ROBE) for Compressed Embedding Tables in Deep Learning
Recommendation Systems, MLSys 2022. ``chunk`` is the paper's Z, the numbers that lie together. Differs from the paper: one
sign per chunk, not per number; tiny features keep exact tables. The array lies in the row store as rows of Z numbers,
and a chunk may begin anywhere, so it is read as two neighbouring rows and cut out (with chunks on row boundaries the
method would be ``multiplexed`` with ``concat``). An L2 penalty on looked-up rows touches all numbers of both rows.
Axes: ``Z`` numbers of a chunk, ``C`` chunks of a vector, ``M`` numbers of the array, ``R`` its rows.
"""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from recembed.errors import ConfigError
from recembed.hashing import hash_rows, mix64, salt
from recembed.rows import RowTable
from recembed.tables.base import Table, TableConfig
from recembed.tables.full import FullTable
from recembed.tables.spec import TableSpec

__all__ = ["RobeConfig", "RobeTable"]


class RobeConfig(TableConfig):
    """One array for all features that name it; bytes ``4 * M``, whatever the vocabularies.

    An id costs ``2 * embedding_dim / chunk`` lookups of ``chunk`` numbers (``embedding_dim`` of them where ``chunk`` is 1).
    Features with a vocabulary are hashed by id, others by raw key. First-order weights have an array of their own, with
    ``chunk`` 1.

    Attributes:
        store: Name of the shared array.
        num_embeddings: Length of the array, in vectors: ``M`` is ``num_embeddings * embedding_dim``.
        ratio: Bytes of array and exact tables as a share of the exact tables' alone (0.25 if ``num_embeddings``
            is not given).
        chunk: Z; if None, ``embedding_dim``. Larger is faster, smaller shares less between two ids.
        exact_below: Features with at most this many ids keep an exact table.

    Raises:
        ConfigError: ``chunk`` does not divide ``embedding_dim``; the array would be shorter than a chunk; no size
            for a feature without a vocabulary.

    >>> specs = [TableSpec("city", 1000, 8), TableSpec("shop", 3000, 8)]
    >>> tables = RobeConfig(num_embeddings=100, chunk=4).build(specs, seed=0)
    >>> set(tables["city"].slots) == set(tables["shop"].slots), tables["city"].slots[0].num_embeddings
    (True, 200)
    """

    kind: Literal["robe"] = "robe"
    sized_by: ClassVar[str] = "num_embeddings"
    store: Annotated[str, Field(min_length=1)] = "robe"
    num_embeddings: Annotated[int, Field(ge=1)] | None = None
    ratio: Annotated[float, Field(gt=0, le=1)] | None = None
    chunk: Annotated[int, Field(ge=1)] | None = None
    exact_below: Annotated[int, Field(ge=0)] = 100

    def build(self, specs: Sequence[TableSpec], seed: int) -> dict[str, Table]:
        """Build all features over one array; tiny ones, and all if the array would not be smaller, exactly."""
        tiny = [s for s in specs if s.num_embeddings is not None and s.num_embeddings <= self.exact_below]
        shared = [spec for spec in specs if spec not in tiny]
        tables: dict[str, Table] = {spec.name: FullTable.of(spec) for spec in tiny}
        if not shared:
            return tables
        width = shared[0].embedding_dim
        chunk = 1 if shared[0].linear else self.chunk or width
        if width % chunk:
            raise ConfigError(
                f"table 'robe', store {self.store!r}: chunk = {chunk} does not divide embedding_dim = {width}; "
                "change one of them"
            )
        vectors = self._vectors(specs, tiny)
        rows = int(vectors * width) // chunk
        if rows < 1:
            raise ConfigError(
                f"table 'robe', store {self.store!r}: {int(vectors * width)} numbers are left for the array, less than "
                f"one chunk of {chunk}; raise ratio, or lower exact_below"
            )
        known = [spec.num_embeddings for spec in shared]
        if None not in known and vectors >= sum(ids or 0 for ids in known):
            return tables | {spec.name: FullTable.of(spec) for spec in shared}
        array = RowTable(shared[0].table_name(self.store), rows, chunk, shared[0].init)
        return tables | {spec.name: RobeTable(array, spec, seed) for spec in shared}

    def _vectors(self, specs: Sequence[TableSpec], tiny: Sequence[TableSpec]) -> float:
        """Return the length of the array in vectors."""
        if self.num_embeddings is not None:
            return self.num_embeddings
        exact = sum(spec.known_ids("robe") for spec in specs)
        return (0.25 if self.ratio is None else self.ratio) * exact - sum(spec.known_ids("robe") for spec in tiny)


class RobeTable(Table):
    """Address: the two rows that each chunk of the id lies in. Decode: cut the chunks out, sign them, concatenate.

    Chunk ``c`` of an id begins at ``hash(id ^ salt_c)`` of the array, which is a ring; its sign is the lowest bit of
    the same mix.

    Args:
        array: The shared array as rows of ``Z`` numbers.
        spec: The feature; salts are keyed by its name.
        seed: Salts depend on it.

    Shapes:
        ids: int64 ``[*S]``, ids of the vocabulary, or keys where there is none; vectors: float32 ``[*S, D]``.
    """

    def __init__(self, array: RowTable, spec: TableSpec, seed: int) -> None:
        self.chunk = array.embedding_dim
        chunks = spec.embedding_dim // self.chunk
        self.neighbours = 1 if self.chunk == 1 else 2
        super().__init__([array] * (chunks * self.neighbours), spec.embedding_dim)
        self.reads = "keys" if spec.num_embeddings is None else "ids"
        self.rows = array.num_embeddings
        salts = [salt(spec.name, "chunk", chunk, seed) for chunk in range(chunks)]
        self.register_buffer("salts", torch.tensor(salts, dtype=torch.int64))

    def offsets(self, ids: Tensor) -> Tensor:
        """Return where each chunk begins in the array, int64 ``[*S, C]``."""
        return hash_rows(ids.unsqueeze(-1), self.get_buffer("salts"), self.rows * self.chunk)

    def signs(self, ids: Tensor) -> Tensor:
        """Return the sign of each chunk, float32 ``[*S, C]``: 1 or -1."""
        return (1 - 2 * (mix64(ids.unsqueeze(-1) ^ self.get_buffer("salts")) & 1)).float()

    def address(self, ids: Tensor) -> Tensor:
        """Return the row each chunk begins in and the one after it."""
        first = self.offsets(ids) // self.chunk  # [*S, C]
        if self.neighbours == 1:
            return first
        return torch.stack([first, (first + 1) % self.rows], dim=-1).flatten(-2)  # [*S, 2 C]

    def decode(self, rows: Sequence[Tensor], ids: Tensor) -> Tensor:
        """Return the signed chunks side by side."""
        signs = self.signs(ids).unsqueeze(-1)  # [*S, C, 1]
        if self.neighbours == 1:
            return (torch.stack(list(rows), dim=-2) * signs).flatten(-2)
        pairs = [torch.cat([rows[i], rows[i + 1]], dim=-1) for i in range(0, len(rows), 2)]
        shift = self.offsets(ids).unsqueeze(-1) % self.chunk  # [*S, C, 1]
        place = shift + torch.arange(self.chunk, device=ids.device)  # [*S, C, Z]
        return (torch.stack(pairs, dim=-2).gather(-1, place) * signs).flatten(-2)
