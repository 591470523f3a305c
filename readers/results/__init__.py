"""Results of another run as a source, so that stages chain."""
