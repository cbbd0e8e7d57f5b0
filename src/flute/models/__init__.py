"""What is learnt from sums: regression, trees, machines, and how well they do."""
