"""Where studies run: a simulator, processes of this machine, real hubs."""
