"""What an attacker gets from a release, with intervals: membership, reconstruction, properties, poisoning."""
