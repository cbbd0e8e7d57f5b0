"""Linear and generalised linear models, plain and penalised."""
