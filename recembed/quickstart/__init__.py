"""The first five minutes: MovieLens-100K, three methods, one table, one chart, one bundle."""

from recembed.quickstart.compare import METHODS, MethodResult, QuickstartResult, method_config, run_quickstart

__all__ = ["METHODS", "MethodResult", "QuickstartResult", "method_config", "run_quickstart"]
