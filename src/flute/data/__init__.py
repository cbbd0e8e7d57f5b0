"""Rows without a serialiser, variables, and the port through which a round opens them."""
