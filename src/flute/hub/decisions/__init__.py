"""What stewards decide: about studies, about studies like them, and what takes two of them."""
