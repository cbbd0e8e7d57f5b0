"""FHIRPath, parsed and compiled."""
