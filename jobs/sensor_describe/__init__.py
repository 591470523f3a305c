"""The `sensor-describe` job: a window of measurements in words and typed fields."""
