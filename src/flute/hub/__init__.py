"""The hospital's program: it admits questions, answers them covered, and journals everything."""
