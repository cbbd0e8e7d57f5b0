"""The program that asks, adds up what is covered, and publishes. It sees envelopes, sums, metadata."""
