"""The coordinator's HTTP API: its routes, what they serve and are given, and the client that calls them."""
