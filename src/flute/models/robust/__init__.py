"""A regression that a minority of hubs cannot drag."""
