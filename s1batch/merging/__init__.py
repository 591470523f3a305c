"""Several results folders to one: what agrees is checked, plans and rows are joined, and the whole is verified."""
