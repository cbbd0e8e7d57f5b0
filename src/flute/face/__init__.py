"""The hub's read-only FHIR face: a process of its own, without keys."""
