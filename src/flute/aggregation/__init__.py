"""Sealed parts to a sum. Four answers to one question will live here; stage 1 has the first, `secagg`."""
