"""Tools: plain Python functions that the model may call while it answers."""
