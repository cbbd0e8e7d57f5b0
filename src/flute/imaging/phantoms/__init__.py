"""SIMULATED studies, as three makers' scanners write them, with faults planted where wanted."""
