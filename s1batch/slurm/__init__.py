"""Runs as Slurm arrays: scripts, submissions, what a task does in its allocation, and how far all of it is."""
