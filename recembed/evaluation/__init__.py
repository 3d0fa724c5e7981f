"""How good are the predictions, how sure is that, and where are they weak?"""

from recembed.evaluation.by_degree import by_degree
from recembed.evaluation.calibration_bins import Reliability, expected_calibration_error, reliability
from recembed.evaluation.comparison import Comparison, Difference, compare
from recembed.evaluation.evaluate import evaluation_mode, predict_logits, summarise
from recembed.evaluation.full_ranking import RankingResult, evaluate_ranking, rank_items, ranking_metrics
from recembed.evaluation.intervals import Interval, bootstrap, bootstrap_auc, delong_interval
from recembed.evaluation.metrics import (
    GroupedAuc,
    auc,
    brier,
    calibration,
    gauc,
    log_loss,
    normalised_entropy,
    rmse,
    sigmoid,
)
from recembed.evaluation.slices import by_frequency, by_unseen
from recembed.evaluation.user_items import UserItems

__all__ = [
    "Comparison",
    "Difference",
    "GroupedAuc",
    "Interval",
    "RankingResult",
    "Reliability",
    "UserItems",
    "auc",
    "bootstrap",
    "bootstrap_auc",
    "brier",
    "by_degree",
    "by_frequency",
    "by_unseen",
    "calibration",
    "compare",
    "delong_interval",
    "evaluate_ranking",
    "evaluation_mode",
    "expected_calibration_error",
    "gauc",
    "log_loss",
    "normalised_entropy",
    "predict_logits",
    "rank_items",
    "ranking_metrics",
    "reliability",
    "rmse",
    "sigmoid",
    "summarise",
]
