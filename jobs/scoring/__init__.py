"""How good picks are: truth, one-to-one matching, metrics with intervals, and pickers to compare with.

These modules know tables and arrays only. `s1batch.score` brings results, archive and truth together.
"""
