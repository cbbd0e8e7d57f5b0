"""SQL-on-FHIR: ViewDefinitions read, compiled, run."""
