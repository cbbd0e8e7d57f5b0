"""Descriptions, tests, survival: one module for each question."""
