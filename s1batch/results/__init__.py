"""Everything on disk about a run: journals, rows, leases, proof and status."""
