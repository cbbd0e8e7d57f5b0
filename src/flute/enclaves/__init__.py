"""Sums split among enclaves: shares out, checks, totals in."""
