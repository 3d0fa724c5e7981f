"""Files → batches: sources, splits, fit, encode and load."""

from recembed.data.encode import encode, encode_to
from recembed.data.encoded import EncodedData
from recembed.data.fit import extend, fit
from recembed.data.loader import Loader

__all__ = ["EncodedData", "Loader", "encode", "encode_to", "extend", "fit"]
