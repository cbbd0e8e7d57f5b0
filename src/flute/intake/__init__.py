"""From resources and tables to a frozen snapshot of one row per patient."""
