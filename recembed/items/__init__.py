"""Items from their content: text, images, attributes and vectors from elsewhere → vectors by raw id."""

from recembed.items.encode import EncodedItems, ItemVectors, encode_items
from recembed.items.settings import ContentConfig

__all__ = ["ContentConfig", "EncodedItems", "ItemVectors", "encode_items"]
