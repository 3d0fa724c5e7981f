"""How long the lookup of one id takes, measured on the serving form of a trained embedding."""

import statistics
import time
from collections.abc import Callable, Sequence
from itertools import islice

import torch

from recembed.batch import Batch
from recembed.data import Loader, encode
from recembed.evaluation import evaluation_mode
from recembed.run import SavedRun, open_data
from recembed.run.build import embedding_of

__all__ = ["lookup_nanoseconds", "nanoseconds_per_id"]

_BATCHES = 4
_BATCH_SIZE = 4096
_REPEATS = 15


def lookup_nanoseconds(run: SavedRun, repeats: int = _REPEATS) -> float:
    """Return nanoseconds per id: test rows through the compact ``FeatureEmbedding`` in evaluation mode, one thread."""
    embedding = embedding_of(run.model)
    frame = open_data(run.config).splits.test.head(_BATCHES * _BATCH_SIZE)
    rows = encode(frame, run.fitted, key_features=embedding.key_features)
    batches = list(islice(Loader(rows, _BATCH_SIZE, shuffle=False, seed=0), _BATCHES))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        served = embedding.compact()
        with evaluation_mode(served), torch.no_grad():
            return nanoseconds_per_id(served, batches, repeats)
    finally:
        torch.set_num_threads(threads)


def nanoseconds_per_id(
    embed: Callable[[Batch], object],
    batches: Sequence[Batch],
    repeats: int,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> float:
    """Return the median over ``repeats`` passes of the time of a pass by its number of ids; one pass warms up."""
    ids = sum(batch.ids.numel() + sum(len(bag.values) for bag in batch.jagged.values()) for batch in batches)
    passes = []
    for _ in range(repeats + 1):
        begin = clock()
        for batch in batches:
            embed(batch)
        passes.append((clock() - begin) / max(ids, 1))
    return statistics.median(passes[1:])
