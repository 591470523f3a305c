"""Several sources as one: prompts of pieces that belong together, by key or by time."""
