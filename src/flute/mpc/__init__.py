"""Computing on shares among hubs, of which a minority may cheat."""
