"""What hubs say of themselves: datasets, decisions, accounts; and who vouches for it."""
