"""Statistics on shares: quantiles, ranks, survival, tables, a regression whose model stays hidden."""
