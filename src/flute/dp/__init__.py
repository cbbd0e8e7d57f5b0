"""Bounds per patient, rounding, noise, accounting."""
