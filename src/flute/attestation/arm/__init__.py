"""Arm CCA: tokens, and the COSE and CBOR that they are written in."""
