"""Regression where values are missing: multiple imputation from sums alone."""
