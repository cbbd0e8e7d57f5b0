"""The hub's journal: chained lines in one file, read while it is written, witnessed elsewhere."""
