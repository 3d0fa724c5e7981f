"""An embedding part for model tests: plain rows, every number open to the eye."""

import torch
from torch import Tensor, nn

from recembed.batch import Batch
from recembed.embedded import Embedded, KeyedTensor


class StubEmbedding(nn.Module):
    """One table of 10 rows per field; dense columns are the batch's numbers."""

    def __init__(self, *, widths: tuple[int, ...], dense: int = 0, linear: bool = True, std: float = 1.0) -> None:
        super().__init__()
        self.field_widths = widths
        self.field_keys = tuple(f"f{place}" for place in range(len(widths)))
        self.dense_width = dense
        self.linear = linear
        self.sequence_widths: dict[str, int] = {}
        self.tables = nn.ParameterList(nn.Parameter(torch.randn(10, width) * std) for width in widths)
        self.first_order = nn.Parameter(torch.randn(len(widths), 10))

    def forward(self, batch: Batch) -> Embedded:
        values = torch.cat([table[batch.ids[:, place]] for place, table in enumerate(self.tables)], dim=1)
        linear = sum(weights[batch.ids[:, place]] for place, weights in enumerate(self.first_order))
        assert isinstance(linear, Tensor)
        fields = KeyedTensor(self.field_keys, self.field_widths, values)
        return Embedded(fields, batch.numeric, linear if self.linear else None, {})


def batch_of(rows: int, *, fields: int, dense: int, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 10, (rows, fields), generator=generator)
    return Batch(ids, {}, torch.randn(rows, dense, generator=generator), torch.zeros(rows, 1))
