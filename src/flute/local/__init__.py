"""A throw-away federation on one machine: real processes, real keys, one folder."""
