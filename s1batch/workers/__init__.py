"""Parts on Dask workers: where the workers come from, what runs on them, and what becomes of parts that lose them.

The only package that imports dask, distributed and dask-jobqueue.
"""
