"""What came out: as values, frames, plots, pages, and risks of a local frame."""
