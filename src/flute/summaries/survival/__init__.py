"""Time until an event: curves, log-rank, Cox regression; exact and private."""
