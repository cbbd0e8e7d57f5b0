"""What a study may spend, has spent, and what a run would cost."""
