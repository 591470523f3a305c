"""Plots beside series, joined with a catalogue."""
