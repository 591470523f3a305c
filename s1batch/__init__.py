"""s1batch: offline batch inference over scientific archives, with every sample accounted for."""

__version__ = "0.1.0"
