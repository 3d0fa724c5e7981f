"""``Ranking``: rows sorted once by group and score, what AUC, gAUC and DeLong count their pairs on.

Axes: ``N`` rows, ``K`` blocks of rows with one score in one group, ``G`` groups.
"""

import numpy as np
from numpy.typing import NDArray

from recembed.evaluation.checks import Floats

__all__ = ["Ranking"]


class Ranking:
    """The order of the rows by group, then by score, with ties kept together in blocks.

    A pair of one positive and one negative row of the same group is won by the positive with the higher
    score; equal scores count one half. All of it is counted in blocks, in O(N) after one sort.

    Shapes:
        labels, scores: float64 ``[N]``; group: int64 ``[N]`` numbers ``0 .. G-1``, or None (one group).
    """

    def __init__(self, labels: Floats, scores: Floats, group: NDArray[np.int64] | None = None) -> None:
        self.order = np.argsort(scores) if group is None else np.lexsort((scores, group))
        self.labels = labels[self.order]  # [N]
        ordered = scores[self.order]  # [N]
        new_block = np.concatenate([[True], ordered[1:] != ordered[:-1]])  # [N]
        new_group = np.zeros(len(ordered), dtype=bool)  # [N]
        if group is not None:
            new_group[1:] = np.diff(group[self.order]) != 0
        new_group[0] = True
        new_block |= new_group
        self.blocks = np.flatnonzero(new_block)  # [K], the first row of each block
        self.groups = np.flatnonzero(new_group[self.blocks])  # [G], the first block of each group

    def _sum_blocks(self, values: Floats) -> Floats:
        return values if len(self.blocks) == len(values) else np.add.reduceat(values, self.blocks)

    def _weigh(self, weights: Floats | None) -> tuple[Floats, Floats]:
        """Return the weight of the positives and of the negatives of each block, both ``[K]``."""
        if weights is None:
            return self._sum_blocks(self.labels), self._sum_blocks(1.0 - self.labels)
        ordered = weights[self.order]  # [N]
        positives = ordered * self.labels  # [N]
        return self._sum_blocks(positives), self._sum_blocks(ordered - positives)

    def _negatives_below(self, negatives: Floats) -> Floats:
        """Return, for each block, the negatives of its group that it beats, ties as one half, ``[K]``."""
        total = np.cumsum(negatives)  # [K]
        below = total - 0.5 * negatives  # [K]
        if len(self.groups) > 1:
            sizes = np.diff(self.groups, append=len(negatives))  # [G]
            below -= np.repeat((total - negatives)[self.groups], sizes)
        return below

    def pairs(self, weights: Floats | None = None) -> tuple[Floats, Floats, Floats]:
        """Return the pairs won, the positives and the negatives of each group, each float64 ``[G]``."""
        positives, negatives = self._weigh(weights)
        won = positives * self._negatives_below(negatives)  # [K]
        won, positives, negatives = (np.add.reduceat(values, self.groups) for values in (won, positives, negatives))
        return won, positives, negatives

    def placements(self) -> Floats:
        """Return for each row the share of rows of the other class it is ranked rightly against, ``[N]``.

        The mean over the positives, and over the negatives, is the AUC. One group only, both classes present.
        """
        positives, negatives = self._weigh(None)
        beaten = self._negatives_below(negatives) / negatives.sum()  # [K]
        beaten_by = 1.0 - (np.cumsum(positives) - 0.5 * positives) / positives.sum()  # [K]
        block = np.repeat(np.arange(len(self.blocks)), np.diff(self.blocks, append=len(self.order)))  # [N]
        shares = np.empty(len(self.order))  # [N]
        shares[self.order] = np.where(self.labels == 1, beaten[block], beaten_by[block])
        return shares
