"""From an experiment to a trained generator: data, assembly of the parts, one step, the trainer."""
