"""How a round is carried out under each plan: what is sent next, carried among hubs, added up."""
