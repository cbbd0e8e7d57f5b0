"""How the coordinator's schema came to be: one file a change, applied when the coordinator starts."""
