"""Training of the reference model: the same modules that serve, run over batches, with gradients.

`router_gradients` holds the straight-through estimator, `series_batches` and `decoder_batches` the batched passes,
`onset_heads` what the tokens of a series are asked during training only, `losses` what is minimised, `muon` and
`optimiser` how, and `loop` goes through the steps and writes checkpoints. Nothing here knows where data come from.
"""
