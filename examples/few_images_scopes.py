"""A hundred images, trained with the augment in each scope: how far does the critic memorise its images?"""

import sys
from pathlib import Path

import numpy as np
import torch
from torchvision.utils import save_image

import gankit

out, *overrides = sys.argv[1:] or ["runs/scopes"]
settings = gankit.load("wgan-gp", *overrides)  # only its data settings are used here; overrides may reduce the counts

# --8<-- [start:data]
eyes = gankit.build("dataset", "eyes", (32, 32), **settings.data.settings.model_dump())
order = np.random.default_rng(0).permutation(len(eyes))
few = max(2, min(100, len(eyes) // 2))
train, unseen = eyes.subset(order[:few]), eyes.subset(order[few : few + 300])
# --8<-- [end:data]

# --8<-- [start:scopes]
AUGMENT = 'augment={name="diffaugment", policy=["color", "translation"], scope="SCOPE"}'
SCOPES = {
    "none": "augment=none",
    **{scope: AUGMENT.replace("SCOPE", scope) for scope in ("critic", "critic-turn", "real")},
}
SMALL = [
    "generator.name=dcgan", "generator.width=16", "critic.name=dcgan", "critic.width=16", "critic.norm=layer",
    "training.batch=16", "training.generator_batch=16", "training.critic_steps=1", "training.steps=1500",
]  # fmt: skip
# --8<-- [end:scopes]


def mean_score(run: gankit.Run, images: np.ndarray) -> float:
    """The critic's mean score of images that are not augmented."""
    with torch.no_grad():
        return float(run.critic(torch.tensor(images, device=run.device) / 127.5 - 1).mean())


# --8<-- [start:table]
rows = []
print(f"{'scope':12}{'seen':>8}{'unseen':>8}{'fake':>8}   kid against unseen images")
for scope, augment in SCOPES.items():
    run = gankit.train(gankit.load("wgan-gp", *SMALL, augment, *overrides), Path(out) / scope, data=train)
    fakes = run.sample(len(unseen), seed=1)
    rows += list(fakes[:8])
    # The scores are printed relative to unseen images, which are of the same kind as the training images.
    scores = [mean_score(run, images) for images in (train.images, unseen.images, fakes)]
    kid = gankit.evaluate(fakes, unseen, ["kid"], run.experiment.evaluation.features)["metrics"]["kid"]
    print(f"{scope:12}{''.join(f'{score - scores[1]:8.2f}' for score in scores)}   "
          f"{kid['value']:.4f} +- {kid['standard_error']:.4f}")  # fmt: skip
# --8<-- [end:table]
pictures = torch.tensor(np.stack(rows)) / 255
save_image(pictures.repeat_interleave(3, 2).repeat_interleave(3, 3), Path(out) / "scopes.png", nrow=8)
