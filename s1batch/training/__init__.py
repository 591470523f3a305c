"""What the nano model is trained on and scored with: synthetic seismograms, labelled recordings, the job's questions.

`crust`, `synthetic`, `noise` and `disturbances` make seismograms; `recordings` reads and augments labelled ones;
`mixture` draws from both; `questions` turns windows into the prompts and answers of `seismic-pick`; `configuration` and
`training` run the loop of `s1batch.engine.reference.training`; `held_out` and `card` score what came out.
"""
