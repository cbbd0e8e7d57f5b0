"""FLUTE: federated health research in which every patient record stays where it is."""

__version__ = "0.1.0"
