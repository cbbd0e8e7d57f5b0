"""Closed, versioned structs and the signed envelopes that carry them. No type here can hold a record."""
