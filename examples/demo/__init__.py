"""Real seismograms, their picks, and the proof."""
