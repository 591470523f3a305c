"""Readers: one module per kind of data, each behind the seam of `base`."""
