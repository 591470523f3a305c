"""Anomalies in the vibration of pumps."""
