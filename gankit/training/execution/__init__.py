"""How a turn is executed: eagerly, compiled, or recorded as a CUDA graph and replayed. Losses need not know."""
