"""Evidence of enclaves: bytes to evidence to verified to accepted, and what evidence is bound to."""
