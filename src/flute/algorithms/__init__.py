"""What an algorithm is, and what algorithms share: design matrices, prefix sums, scores, evaluation."""
