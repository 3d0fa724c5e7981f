import numpy as np
import pytest

from recembed.errors import ConfigError, DataError
from recembed.evaluation import auc, by_frequency, by_unseen, calibration, log_loss, normalised_entropy, sigmoid

LABELS = np.array([0, 1, 0, 1, 1, 0, 1])
LOGITS = np.array([-1.0, 2.0, 0.5, 0.0, 3.0, -2.0, -0.5])
COUNTS = np.array([0, 0, 1, 4, 5, 99, 100])


def test_buckets_by_hand() -> None:
    table = by_frequency(LABELS, LOGITS, COUNTS)
    assert table["bucket"].to_list() == ["0", "1-4", "5-19", "20-99", "100+"]
    assert table["n"].to_list() == [2, 2, 1, 1, 1]
    assert table["positives"].to_list() == [1, 1, 1, 0, 1]
    assert table["share"].to_list() == pytest.approx([2 / 7, 2 / 7, 1 / 7, 1 / 7, 1 / 7])
    assert table["auc"].to_list() == [1.0, 0.0, None, None, None]
    assert table["calibration"][3] is None
    assert table["logloss"].null_count() == 0


def test_a_slice_has_the_metrics_of_its_rows() -> None:
    line = by_frequency(LABELS, LOGITS, COUNTS, edges=(4,)).row(1, named=True)
    rows = COUNTS >= 4
    y, x = LABELS[rows], LOGITS[rows]
    assert line["bucket"] == "4+"
    assert line["auc"] == auc(y, x)
    assert line["logloss"] == log_loss(y, x)
    assert line["ne"] == normalised_entropy(y, x)
    assert line["calibration"] == calibration(y, sigmoid(x))


def test_an_empty_bucket_is_kept_with_nulls() -> None:
    line = by_frequency(LABELS, LOGITS, np.full(7, 50)).row(0, named=True)
    assert (line["bucket"], line["n"], line["share"], line["logloss"]) == ("0", 0, 0.0, None)


def test_unseen_ids_per_feature() -> None:
    masks = {"item": COUNTS == 0, "city": np.zeros(7, dtype=bool)}
    table = by_unseen(LABELS, LOGITS, masks)
    assert table.select("feature", "unseen", "n").rows() == [
        ("item", False, 5),
        ("item", True, 2),
        ("city", False, 7),
        ("city", True, 0),
    ]
    assert table["auc"][1] == 1.0
    assert table["auc"][2] == auc(LABELS, LOGITS)
    assert table["auc"][3] is None


@pytest.mark.parametrize("edges", [(), (0, 5), (5, 5), (20, 5)])
def test_edges_that_do_not_rise_are_refused(edges: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="expected rising counts from 1 on"):
        by_frequency(LABELS, LOGITS, COUNTS, edges)


def test_bad_counts_and_masks_are_refused() -> None:
    with pytest.raises(DataError, match=r"train_counts \[3\]: expected 7 counts of 0 or more"):
        by_frequency(LABELS, LOGITS, COUNTS[:3])
    with pytest.raises(DataError, match=r"train_counts \[7\]: expected 7 counts of 0 or more"):
        by_frequency(LABELS, LOGITS, COUNTS - 1)
    with pytest.raises(DataError, match=r"unseen\['item'\] int64 \[7\]: expected bool \[7\]"):
        by_unseen(LABELS, LOGITS, {"item": COUNTS})
