"""Charts: pure functions from numbers to inline SVG."""
