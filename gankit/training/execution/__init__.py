"""How a turn is executed: eagerly, compiled, or recorded once as a CUDA graph and replayed; losses know none of it."""
