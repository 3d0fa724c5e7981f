"""Codes at their real bits, and the table that serves codewords by them.

Axes: ``P`` codes per id, ``K`` codewords of each part, ``w`` width of a codeword, ``n`` ids.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recembed.tables.base import Table
from recembed.tables.popularity import PopularityRank

__all__ = ["CodeLayout", "PackedCodes", "ServedCodewords", "codewords"]


@dataclass(frozen=True, slots=True)
class CodeLayout:
    """Which codes an id has: so many ids of ``bits`` each first, then the others of ``rare_bits`` (at most 16).

    Attributes:
        ids: All ids, ``n``.
        parts: Codes per id, ``P``.
        bits: Bits of a code of the frequent ids.
        frequent: How many ids are frequent.
        rare_bits: Bits of a code of the others.

    >>> CodeLayout(ids=10, parts=4, bits=8, frequent=2, rare_bits=5).bytes  # 8 + 20, and 2 to read beyond the end
    30
    """

    ids: int
    parts: int
    bits: int
    frequent: int
    rare_bits: int

    @property
    def all_bits(self) -> int:
        """Bits of all codes."""
        return self.parts * (self.frequent * self.bits + (self.ids - self.frequent) * self.rare_bits)

    @property
    def bytes(self) -> int:
        """Bytes of all codes, packed."""
        return (self.all_bits + 7) // 8 + 2


class PackedCodes(nn.Module):
    """The codes of all ids in one string of bits, least significant bit first; ids come by rank.

    >>> codes = PackedCodes(CodeLayout(ids=3, parts=2, bits=3, frequent=1, rare_bits=1))
    >>> codes.write(torch.tensor([0, 1, 2]), torch.tensor([[5, 2], [1, 0], [0, 1]]))
    >>> codes(torch.tensor([2, 0])).tolist(), codes.packed.tolist()
    ([[0, 1], [5, 2]], [85, 2, 0, 0])
    """

    packed: Tensor

    def __init__(self, layout: CodeLayout) -> None:
        super().__init__()
        self.layout = layout
        self.register_buffer("packed", torch.zeros(layout.bytes, dtype=torch.uint8))

    def write(self, ranks: Tensor, codes: Tensor) -> None:
        """Write the codes of some ids, int64 ``[N, P]``, where there are none yet."""
        first, width = self._places(ranks)  # [N, P], [N, 1]
        shifted = (codes & ((1 << width) - 1)) << (first & 7)
        for byte in range(3):
            piece = ((shifted >> (8 * byte)) & 255).to(torch.uint8)
            self.packed.index_add_(0, ((first >> 3) + byte).flatten(), piece.flatten())

    def forward(self, ranks: Tensor) -> Tensor:
        """Return the codes of ``ranks`` ``[*S]``, int64 ``[*S, P]``."""
        first, width = self._places(ranks)
        byte = first >> 3
        window = self.packed[byte].long() | self.packed[byte + 1].long() << 8 | self.packed[byte + 2].long() << 16
        return (window >> (first & 7)) & ((1 << width) - 1)

    def _places(self, ranks: Tensor) -> tuple[Tensor, Tensor]:
        """Return the first bit of each code, ``[*S, P]``, and the bits of an id's codes, ``[*S, 1]``."""
        layout, ranks = self.layout, ranks.unsqueeze(-1)
        often = ranks.clamp(max=layout.frequent)
        before = layout.parts * (often * layout.bits + (ranks - often) * layout.rare_bits)
        width = torch.where(ranks < layout.frequent, layout.bits, layout.rare_bits)
        return before + width * torch.arange(layout.parts, device=ranks.device), width


class ServedCodewords(Table):
    """Vectors that are codewords side by side; it cannot be trained.

    Args:
        codebook: float32 ``[P, K, w]``.
        codes: Which codewords an id has.
        rank: Rank of an id in ``codes``; None where it is the id.

    Shapes:
        ids: int64 ``[*S]``; vectors: float32 ``[*S, P * w]``.

    >>> codes = PackedCodes(CodeLayout(ids=2, parts=2, bits=1, frequent=2, rare_bits=1))
    >>> codes.write(torch.tensor([0, 1]), torch.tensor([[0, 1], [1, 1]]))
    >>> table = ServedCodewords(torch.tensor([[[1.0], [2.0]], [[3.0], [4.0]]]), codes, None)
    >>> table.decode([], torch.tensor([1, 0])).tolist(), table.overhead_bytes
    ([[2.0, 4.0], [1.0, 4.0]], 19)
    """

    def __init__(self, codebook: Tensor, codes: PackedCodes, rank: PopularityRank | None) -> None:
        parts, _, width = codebook.shape
        super().__init__([], parts * width)
        self.register_buffer("codebook", codebook.detach().clone())
        self.codes = codes
        self.rank = rank

    def address(self, ids: Tensor) -> Tensor:
        """Return no addresses: nothing is fetched."""
        return ids.unsqueeze(-1)[..., :0]

    def decode(self, rows: Sequence[Tensor], ids: Tensor) -> Tensor:
        """Return the vectors."""
        codes = self.codes(ids if self.rank is None else self.rank(ids))  # [*S, P]
        return codewords(self.get_buffer("codebook"), codes).flatten(-2)


def codewords(codebook: Tensor, codes: Tensor) -> Tensor:
    """Return the codeword of each part: ``codebook`` ``[P, K, w]`` read at ``codes`` ``[*S, P]`` is ``[*S, P, w]``."""
    parts, words, width = codebook.shape
    return F.embedding(codes + words * torch.arange(parts, device=codes.device), codebook.view(-1, width))
