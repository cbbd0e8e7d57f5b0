"""The common model: its declaration, StructureDefinitions made from it, checks, units."""
