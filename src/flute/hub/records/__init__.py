"""A hub's own records: imported, decided about by hand, withdrawn, described in its catalogue."""
