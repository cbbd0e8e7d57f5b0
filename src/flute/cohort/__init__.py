"""Who is in: declared rules, the flow of persons, decisions by hand, contradictions."""
