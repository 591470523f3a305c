"""Claims with checked quotes from a small corpus."""
