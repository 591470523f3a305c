"""A question about every row of two tables."""
