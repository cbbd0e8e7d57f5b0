"""Support vector machines: exact, private, with random features of a kernel."""
