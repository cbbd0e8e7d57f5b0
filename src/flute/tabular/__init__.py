"""SQL, CSV and Excel as sources, by a mapping file that is checked first."""
