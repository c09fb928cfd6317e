"""A run folder: its experiment, its checkpoints, its generator, samples from it."""
