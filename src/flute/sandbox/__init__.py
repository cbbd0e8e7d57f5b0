"""A researcher's own step, run at the hub without trust in it: read `run`, then `runner`, `launch` and `filters`."""
