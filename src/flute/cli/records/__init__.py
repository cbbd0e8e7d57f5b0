"""Commands about records and images that need no hub, and how commands about records read and speak."""
