"""Picks of windows, and a question about every station's picks."""
