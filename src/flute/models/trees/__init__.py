"""Trees on public bins: one, a forest, boosted; exact and private."""
