"""Noise: coloured, with microseisms, machines, cultural bursts, and a level that drifts."""

from __future__ import annotations

import numpy as np

from s1batch.training.labelled import Wave


def coloured_noise(random: np.random.Generator, channels: int, steps: int, rate_hz: float) -> Wave:
    """Return noise of shape (C, T) with a standard deviation near one.

    A power law, and each now and then: microseisms at 0.1 to 0.5 Hz, a low-pass as of an old record, one or two lines
    of machines, a slow drift of the level, footsteps or traffic.
    """
    frequency = np.maximum(np.fft.rfftfreq(steps, 1 / rate_hz), 0.05)
    amplitude = frequency ** -random.uniform(0.0, 1.3)
    if random.random() < 0.4:
        peak_hz, height = random.uniform(0.12, 0.5), random.uniform(0, 60)
        bump = np.exp(-0.5 * (np.log2(frequency / peak_hz) / 0.3) ** 2)
        amplitude = amplitude + amplitude[len(amplitude) // 4] * height * bump
    if random.random() < 0.3:
        amplitude = amplitude / np.sqrt(1 + (frequency / random.uniform(12, 45)) ** 8)
    for _ in range(int(random.choice([0, 0, 1, 2]))):
        line = np.exp(-0.5 * ((frequency - random.uniform(1, 0.45 * rate_hz)) / random.uniform(0.03, 1)) ** 2)
        amplitude = amplitude + amplitude.mean() * random.uniform(0, 20) * line
    noise = shaped(random, channels, steps, amplitude)
    if random.random() < 0.3:
        noise *= _drift(random, steps)
    if random.random() < 0.15:
        noise += _culture(random, channels, steps, rate_hz)
    return noise


def shaped(random: np.random.Generator, channels: int, steps: int, amplitude_F: np.ndarray) -> Wave:
    """Return Gaussian noise of shape (C, T) with a given amplitude spectrum and unit deviation."""
    count = len(amplitude_F)
    parts = random.standard_normal((2, channels, count), dtype=np.float32)
    wave = np.fft.irfft((parts[0] + 1j * parts[1]) * amplitude_F.astype(np.float32), steps).astype(np.float32)
    return wave / (wave.std(axis=1, keepdims=True) + 1e-9)  # type: ignore[no-any-return]


def _drift(random: np.random.Generator, steps: int) -> Wave:
    knots = np.exp(random.normal(0, 0.4, 8))
    return np.interp(np.arange(steps), np.linspace(0, steps, 8), knots).astype(np.float32)


def _culture(random: np.random.Generator, channels: int, steps: int, rate_hz: float) -> Wave:
    """Footsteps, or something that drives by: bursts that swell and fade, without the order of P and S."""
    at = np.arange(steps, dtype=np.float32)
    band_hz = random.uniform(4, 25)
    frequency = np.maximum(np.fft.rfftfreq(steps, 1 / rate_hz), 0.05)
    carrier = shaped(random, channels, steps, np.exp(-0.5 * (np.log2(frequency / band_hz) / 0.5) ** 2))
    middle, width = random.uniform(0, steps), random.uniform(2, 12) * rate_hz
    envelope = np.exp(-0.5 * ((at - middle) / width) ** 2)
    if random.random() < 0.5:
        period = random.uniform(0.4, 1.2) * rate_hz
        envelope *= np.exp(-0.5 * (((at % period) - period / 2) / (0.06 * rate_hz)) ** 2)
    return (carrier * envelope * 10 ** random.uniform(0.0, 0.9)).astype(np.float32)  # type: ignore[no-any-return]
