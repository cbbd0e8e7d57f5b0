"""Neural networks: a closed list of layers, training at hubs, private and not."""
