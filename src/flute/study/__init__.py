"""The agreement of a study, what protects it, what it costs, and what comes out."""
