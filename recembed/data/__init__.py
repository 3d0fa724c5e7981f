"""Files → batches: sources, splits, fit, encode and load."""

from recembed.data.check import check_columns
from recembed.data.datasets import DATASETS, load_dataset
from recembed.data.encode import encode, encode_to
from recembed.data.encoded import EncodedData
from recembed.data.fit import extend, fit
from recembed.data.kept import KeptRows, fit_and_keep
from recembed.data.leaks import leak_check
from recembed.data.loader import Loader
from recembed.data.report import describe, report
from recembed.data.split import SplitConfig, Splits, split_frame
from recembed.sources import reading, scan

__all__ = [
    "DATASETS",
    "EncodedData",
    "KeptRows",
    "Loader",
    "SplitConfig",
    "Splits",
    "check_columns",
    "describe",
    "encode",
    "encode_to",
    "extend",
    "fit",
    "fit_and_keep",
    "leak_check",
    "load_dataset",
    "reading",
    "report",
    "scan",
    "split_frame",
]
