"""A table that shows what the data are: one row per feature and split."""
