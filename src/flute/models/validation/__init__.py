"""Cross-validation: models fitted without a fold and scored on it."""
