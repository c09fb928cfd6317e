"""Train on a folder of pictures with a table of labels, patients and raters' votes; here it is made from the eyes."""

import csv
import sys
from pathlib import Path

import numpy as np
from PIL import Image

import gankit

out, *overrides = sys.argv[1:] or ["runs/own-folder"]
settings = {"patients": 300} | {k: int(v) for k, v in (o.split("=") for o in overrides if "." not in o)}
pictures = Path(out) / "pictures"

# --8<-- [start:write]
# More normal eyes than others, as in a clinic.
counts = tuple(settings["patients"] * share // 10 for share in (3, 2, 5))
eyes = gankit.build("dataset", "eyes", (32, 32), counts=counts)
votes = eyes.facts["calls"]  # (n, 10): the class that each of ten raters voted for
pictures.mkdir(parents=True)
with open(pictures / "labels.csv", "w", newline="", encoding="utf-8") as file:
    table = csv.writer(file)
    table.writerow(["file", "label", "group", *(f"vote_{rater}" for rater in range(1, 11)), "age"])
    for patient, label in enumerate(eyes.labels):
        # Two pictures of each patient, so that a split by pictures would put some patients on both sides. `mirror` also
        # exchanges the two rows, so that each eye keeps its place and the diagnosis is the same.
        for take, image in enumerate((eyes.images[[patient]], eyes.mirror(eyes.images[[patient]]))):
            name = f"p{patient:04}-{take}.png"
            Image.fromarray(image[0].transpose(1, 2, 0)).save(pictures / name)
            calls = [eyes.class_names[call] for call in votes[patient]]
            age = f"{eyes.facts['age'][patient]:.1f}"
            table.writerow([name, eyes.class_names[label], f"p{patient:04}", *calls, age])
# --8<-- [end:write]

# --8<-- [start:train]
experiment = gankit.load(
    "demo",  # small networks, quick to train
    "data.name=folder", f"data.path={pictures}",
    "data.mirror_keeps_label=false", "data.flip=false",  # a left-right flip makes a right eye look like a left one
    "data.conditional=true",  # the networks get the label as an input
    "data.min_agreement=0.7",  # train only on pictures that at least seven of ten raters agree on
    "data.balance=0.5",  # show rare classes more often
    "data.held_out=0.2",  # keep a fifth of the patients, with all their pictures, for evaluation
    "training.steps=1000", "training.max_minutes=none",  # the demo itself stops after seven minutes
    *(override for override in overrides if "." in override),  # settings from the command line
)  # fmt: skip
run = gankit.train(experiment, Path(out) / "run")
# --8<-- [end:train]

# --8<-- [start:use]
data = gankit.build("dataset", "folder", path=pictures)
kept = np.bincount(data.labels[data.agreement >= 0.7 - 1e-9], minlength=3)
print("pictures that raters agree on:", dict(zip(data.class_names, kept.tolist(), strict=True)))
images = run.sample(8, labels="esotropia", seed=1)  # (8, 3, 32, 32) uint8
report = gankit.evaluate(run, metrics=["kid", "intra-class"])  # features of efficientnet-lite0 with gankit[offline]
for name, entry in report["metrics"].items():
    print(f"{name}: {entry['value']:.4g} of {entry['n_real']} real and {entry['n_fake']} generated pictures")
# --8<-- [end:use]
