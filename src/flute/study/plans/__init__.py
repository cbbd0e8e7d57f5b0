"""Each plan as a study uses it: a hub's side and the coordinator's."""
