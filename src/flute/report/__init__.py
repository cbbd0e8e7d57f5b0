"""Reports as self-contained pages: of studies, imports, attacks."""
