"""What a line of the journal can say: a closed set of kinds."""
