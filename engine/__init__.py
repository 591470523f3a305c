"""Engines: whoever answers a `Request` with a `Response`.

`base` holds the seam; `reference`, `http` and `replay` implement it; `feeder` drives any of them; `rules` says what
each refuses; `tokens` and `costs` hold the model's arithmetic.
"""
