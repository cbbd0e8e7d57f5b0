"""Study files: read, checked, and what people are told to write."""
