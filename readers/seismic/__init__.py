"""The seismic reader: MiniSEED through pymseed, every other waveform format through ObsPy."""
