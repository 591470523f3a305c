"""The reference engine: the Intern-S1-Pro architecture in PyTorch, at nano size, behind the `Engine` seam.

`spec` holds the job-file block and opens the engine. `config`, `chat`, `images` and `identity` need no torch; `fope`,
`router`, `decoder`, `time_series`, `vision` and `model` are the network; `checkpoint`, `shards` and `conversion` read
and write it, with the files of `companions` and `published` for other programs; `sampler`, `guided`, `generate` and
`engine` make it answer. The package `training` trains it.
"""
