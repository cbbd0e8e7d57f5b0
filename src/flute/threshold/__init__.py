"""Threshold encryption: keys dealt among hubs, sums of ciphertexts, openings with proofs."""
