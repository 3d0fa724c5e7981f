import numpy as np

from recembed.evaluation.ranking import Ranking


def test_placements_by_hand() -> None:
    labels = np.array([1.0, 0.0, 1.0, 0.0])
    scores = np.array([3.0, 1.0, 1.0, 2.0])
    # 3 beats both negatives; 1 ties one and loses one; negative 1 is below 3 and ties 1; negative 2 is below 3 only
    assert Ranking(labels, scores).placements().tolist() == [1.0, 0.75, 0.25, 0.5]


def test_pairs_of_each_group_in_any_row_order() -> None:
    labels = np.array([1.0, 0.0, 1.0, 0.0, 1.0])
    scores = np.array([2.0, 5.0, 1.0, 1.0, 5.0])
    group = np.array([1, 0, 0, 1, 0])
    won, positives, negatives = Ranking(labels, scores, group).pairs()
    assert won.tolist() == [0.5, 1.0]  # group 0: 1 loses and 5 ties against 5; group 1: 2 beats 1
    assert positives.tolist() == [2.0, 1.0]
    assert negatives.tolist() == [1.0, 1.0]
