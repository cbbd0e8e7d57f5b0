"""Arithmetic mod 2^k, expansion of keys, shares, signing and sealing keys."""
