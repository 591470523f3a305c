"""Jobs that run as they are."""
