"""One script for each program: run by that program's own Python, so they import nothing of s1batch.

    PYTHON SCRIPT SETTINGS.json

The settings are the fields of `tests.benchmarks.peers.programs.Task`.
"""
