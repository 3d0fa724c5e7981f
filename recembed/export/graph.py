"""``ServingGraph``: a trained model that takes raw 64-bit keys, as one ``torch.export`` program.

Axes: ``B`` rows, ``C`` categorical features, ``W`` numeric columns, ``N`` ids of a jagged feature, ``V`` vocabulary.
"""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.nn import functional as F

from recembed.batch import Batch, Jagged
from recembed.embedding import FeatureEmbedding
from recembed.errors import ExportError
from recembed.schema.feature import Feature, Schema
from recembed.schema.fitted import FittedSchema
from recembed.schema.vocabulary import Vocabulary, lookup_ids
from recembed.tables.full import FullTable

__all__ = ["ServingGraph", "compact_model", "embedding_of", "trace"]

_EXAMPLE_ROWS = 3


class ServingGraph(nn.Module):
    """Raw keys and numbers to scores, with the id maps and the hashing inside.

    The model is copied with its embedding in compact form; the trained model is left as it is.

    Args:
        model: A trained model that holds one ``FeatureEmbedding`` and maps a ``Batch`` to logits ``[B]``.
        fitted: The mapping it was trained under.

    Shapes:
        keys: int64 ``[B, C]``, the categorical features in the schema's order, ``MISSING_KEY`` where missing;
        jagged: by feature, in the schema's order, ``(values int64 [N], lengths int64 [B])``, and ``weights float32
        [N]`` third where the feature has weights (lengths, not offsets: one symbol for ``B``, so ``B = 1`` runs too); numeric: float32 ``[B, W]``, NaN where missing.
        Returns ``{"probability": float32 [B], "logit": float32 [B]}``.

    Raises:
        ExportError: the model holds no ``FeatureEmbedding`` or several, or was trained under another mapping.
    """

    def __init__(self, model: nn.Module, fitted: FittedSchema) -> None:
        super().__init__()
        embedding = embedding_of(model)
        _check_mapping(embedding, fitted)
        self.model = compact_model(model)
        lookups = {name: _Lookup(vocabulary) for name, vocabulary in fitted.vocabularies.items()}

        def mapping(feature: Feature) -> nn.Module:
            return _Identity() if feature.name in embedding.key_features else lookups[feature.vocabulary_name]

        self.categorical = nn.ModuleList(mapping(feature) for feature in fitted.schema.categorical)
        self.jagged = nn.ModuleList(mapping(feature) for feature in fitted.schema.jagged)
        self._names = tuple(feature.name for feature in fitted.schema.jagged)

    def bytes(self) -> dict[str, int]:
        """Return the bytes of the graph's tensors: ``embeddings``, ``id_maps`` and ``dense`` (all other weights)."""
        maps = {id(values): values for part in (self.categorical, self.jagged) for values in part.buffers()}
        held = {id(values): values for values in (*self.model.parameters(), *self.model.buffers())}
        id_maps, every = (sum(v.numel() * v.element_size() for v in found.values()) for found in (maps, held))
        embeddings = embedding_of(self.model).bytes
        return {"embeddings": embeddings, "id_maps": id_maps, "dense": every - embeddings}

    def forward(self, keys: Tensor, jagged: Mapping[str, tuple[Tensor, ...]], numeric: Tensor) -> dict[str, Tensor]:
        """Score one batch."""
        columns = keys.t().contiguous().unbind(0)  # C times [B]
        mapped = [mapping(column) for mapping, column in zip(self.categorical, columns, strict=True)]
        ids = torch.stack(mapped, dim=1) if mapped else keys  # [B, C]
        bags = {
            name: Jagged(mapping(jagged[name][0]), _offsets(jagged[name][1]), *jagged[name][2:])
            for name, mapping in zip(self._names, self.jagged, strict=True)
        }
        logits = self.model(Batch(ids, bags, numeric, labels=numeric[:, :0])).float()  # [B]
        return {"probability": torch.sigmoid(logits), "logit": logits}


def _offsets(lengths: Tensor) -> Tensor:
    return F.pad(lengths.cumsum(0), (1, 0))  # [B + 1]


class _Identity(nn.Module):
    """The feature's table reads raw keys."""

    def forward(self, keys: Tensor) -> Tensor:
        return keys


class _Lookup(nn.Module):
    """The feature's table reads ids of its vocabulary."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.oov_buckets = vocabulary.oov_buckets
        sorted_keys, sorted_ids = vocabulary.tensors()
        self.register_buffer("sorted_keys", sorted_keys.clone())  # the vocabulary keeps its own
        self.register_buffer("sorted_ids", sorted_ids.clone())

    def forward(self, keys: Tensor) -> Tensor:
        return lookup_ids(keys, self.get_buffer("sorted_keys"), self.get_buffer("sorted_ids"), self.oov_buckets)


def embedding_of(model: nn.Module) -> FeatureEmbedding:
    """Return the one ``FeatureEmbedding`` of a model.

    Raises:
        ExportError: it holds none or several.
    """
    found = [module for module in model.modules() if isinstance(module, FeatureEmbedding)]
    if len(found) != 1:
        raise ExportError(f"{type(model).__name__} holds {len(found)} FeatureEmbeddings: expected exactly one")
    return found[0]


def _check_mapping(embedding: FeatureEmbedding, fitted: FittedSchema) -> None:
    advice = "export with the fitted schema of the run"
    if embedding.schema != fitted.schema:
        raise ExportError(f"the model was built for another schema; {advice}")
    for name, vocabulary in fitted.vocabularies.items():
        table = embedding.tables[name]
        rows = table.slots[0].num_embeddings if table.slots else 0
        if isinstance(table, FullTable) and rows != vocabulary.num_embeddings:
            raise ExportError(
                f"feature {name!r}: the vocabulary has {vocabulary.num_embeddings} ids, the trained table {rows} rows; "
                + advice
            )


@torch.no_grad()
def compact_model(model: nn.Module) -> nn.Module:
    """Return a copy of a trained model, on CPU in evaluation mode, with its embedding in compact form: what is served.

    Raises:
        ExportError: the model holds no ``FeatureEmbedding`` or several. ConfigError: a method has to be settled first.
    """
    embedding = embedding_of(model)
    if embedding.compacted:
        return model
    copied: nn.Module = copy.deepcopy(model, {id(embedding): embedding.compact()}).requires_grad_(False).cpu().eval()
    for module in copied.modules():
        for name, values in module.named_buffers(recurse=False):
            if values.untyped_storage().nbytes() != values.nbytes:  # a slice: the file would hold the whole
                setattr(module, name, values.clone())
    return copied


def trace(graph: ServingGraph, schema: Schema) -> ExportedProgram:
    """Trace the graph for any number of rows and of ids.

    Python code that torch's quick tracer fixes to the example's sizes (``len(tensor)``) gets a second try with the
    slower one, which reads byte code.

    Raises:
        ExportError: the model does something that cannot be exported.
    """
    keys = torch.arange(_EXAMPLE_ROWS * len(schema.categorical)).view(_EXAMPLE_ROWS, len(schema.categorical))
    numeric = torch.zeros(_EXAMPLE_ROWS, sum(feature.width for feature in schema.numeric))
    jagged = {feature.name: _example(feature) for feature in schema.jagged}
    batch = Dim("batch")
    shapes = {name: _dynamic(Dim(f"ids_{i}"), batch, jagged[name]) for i, name in enumerate(jagged)}
    inputs, dynamic = (keys, jagged, numeric), ({0: batch}, shapes, {0: batch})
    with torch.no_grad():
        try:
            return torch.export.export(graph, inputs, dynamic_shapes=dynamic, strict=False)
        except Exception:
            with _told_as_export_error():
                return torch.export.export(graph, inputs, dynamic_shapes=dynamic, strict=True)


@contextmanager
def _told_as_export_error() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # the tracers raise many kinds
        lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        raise ExportError(
            f"the model cannot be traced by torch.export: {lines[0]} (a sequence that is not pooled needs max_length)"
        ) from error


def _example(feature: Feature) -> tuple[Tensor, ...]:
    values, lengths = torch.arange(5), torch.tensor([2, 0, 3])
    return (values, lengths, torch.ones(5)) if feature.weights else (values, lengths)


def _dynamic(ids: Dim, batch: Dim, example: tuple[Tensor, ...]) -> tuple[dict[int, Dim], ...]:
    return ({0: ids}, {0: batch}, {0: ids})[: len(example)]
