"""Files → batches: sources, splits, fit, encode and load."""

from recembed.data.datasets import DATASETS, load_dataset
from recembed.data.encode import encode, encode_to
from recembed.data.encoded import EncodedData
from recembed.data.fit import extend, fit
from recembed.data.kept import fit_and_keep
from recembed.data.leaks import leak_check
from recembed.data.loader import Loader
from recembed.data.report import describe, report
from recembed.data.sources import check_columns, reading, scan
from recembed.data.split import SplitConfig, Splits, split_frame

__all__ = [
    "DATASETS",
    "EncodedData",
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
