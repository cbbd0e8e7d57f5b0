"""The journal, and the budget and the audit log that are views of it."""
