"""Train, sample and evaluate from Python; overrides as on the command line can follow the output folder."""

import sys

import gankit

out, *overrides = sys.argv[1:] or ["runs/example"]
experiment = gankit.load("wgan-gp-diffaugment", "data.conditional=true", *overrides)
run = gankit.train(experiment, out)

images = run.sample(16, labels="esotropia", seed=1)  # (16, 3, 32, 32) uint8
report = gankit.evaluate(run, run, metrics=["frechet"], features="pixels", count=200)
value = report["metrics"]["frechet"]
print(images.shape, f"{value['value']:.3g} +- {value['standard_error']:.2g}")
print("real against real:", value["real_vs_real"])
