"""The `sensor-anomaly` job: whether a window of measurements holds an anomaly, and where."""
