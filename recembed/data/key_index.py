"""The fast lookup of keys, where the data room's readers look for it."""

from recembed.schema.key_index import KeyIndex

__all__ = ["KeyIndex"]
