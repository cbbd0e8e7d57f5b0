"""What outsiders may know of a dataset: its catalogue entry, in the standards that catalogues and machines read."""
