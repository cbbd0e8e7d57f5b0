"""`flute hub`: what a hub's owner, operator and stewards type."""
