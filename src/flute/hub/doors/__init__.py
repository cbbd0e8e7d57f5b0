"""The steward's door: a local API, its routes, and the clients that commands use."""
