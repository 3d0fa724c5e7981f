"""Numbers → vectors: one file per method, and the dictionary of their kinds."""

from recembed.numeric.base import NumericConfig, NumericEncoder
from recembed.numeric.buckets import BucketsConfig
from recembed.numeric.linear import LinearConfig
from recembed.numeric.mlp import MLPConfig
from recembed.numeric.periodic import PeriodicConfig
from recembed.numeric.piecewise_linear import PiecewiseLinearConfig
from recembed.numeric.standardize import LogConfig, StandardizeConfig

__all__ = [
    "NUMERIC",
    "BucketsConfig",
    "LinearConfig",
    "LogConfig",
    "MLPConfig",
    "NumericConfig",
    "NumericEncoder",
    "PeriodicConfig",
    "PiecewiseLinearConfig",
    "StandardizeConfig",
]

NUMERIC: dict[str, type[NumericConfig]] = {
    "standardize": StandardizeConfig,
    "log": LogConfig,
    "buckets": BucketsConfig,
    "linear": LinearConfig,
    "mlp": MLPConfig,
    "piecewise_linear": PiecewiseLinearConfig,
    "periodic": PeriodicConfig,
}
