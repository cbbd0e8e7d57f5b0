"""Constants of models and networks, with unit and reason."""
