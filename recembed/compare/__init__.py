"""Methods × budgets × seeds on one data set and model: a table, a chart and a page."""

from recembed.compare.runner import ComparisonResult, run_comparison
from recembed.compare.settings import Budget, ComparisonConfig, Method, load_comparison
from recembed.compare.table import Line, frame_of

__all__ = [
    "Budget",
    "ComparisonConfig",
    "ComparisonResult",
    "Line",
    "Method",
    "frame_of",
    "load_comparison",
    "run_comparison",
]
