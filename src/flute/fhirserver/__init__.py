"""FHIR servers as sources: searches, bulk export, signing in."""
