"""Readers of a hospital's systems behind one port."""
