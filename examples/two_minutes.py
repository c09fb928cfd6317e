"""Train a small GAN, sample from it and evaluate it: the commands of the tutorial, from Python."""

import sys

import gankit

out, *overrides = sys.argv[1:] or ["runs/from-python"]
run = gankit.train(gankit.load("demo", "training.steps=500", *overrides), out)
images = run.sample(16, seed=1)  # (16, 3, 32, 32) uint8, a NumPy array
report = gankit.evaluate(run, run, ["frechet", "kid"], "pixels")  # samples of the run beside its training images
for name, entry in report["metrics"].items():
    print(f"{name}: {entry['value']:.3g} +- {entry['standard_error']:.2g} with {entry['n_fake']} generated images")
