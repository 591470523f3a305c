"""Sensor arrays: Zarr, NetCDF and HDF5, on disk and in object stores."""
