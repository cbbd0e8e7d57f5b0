"""The privacy budget as the journal tells it: accounts, ceilings, allotments, reservations."""
