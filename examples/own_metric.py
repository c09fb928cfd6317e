"""A metric of one's own: how much brighter generated images are than real ones."""

import sys

import numpy as np

import gankit
from gankit.evaluation.tables import text_table


@gankit.metrics.register("brightness")
class Brightness(gankit.Metric):
    """Difference of mean grey levels (0 to 255), generated less real; 0 is right."""

    needs = ("images",)

    def __init__(self) -> None:
        self.add_state("sums", lambda: np.zeros((2, 2)), np.add)

    def update(self, batch: gankit.Batch) -> None:
        self.sums[int(batch.real)] += batch.images.mean((1, 2, 3)).sum(), len(batch.images)

    def compute(self) -> dict[str, float]:
        fake, real = self.sums[:, 0] / self.sums[:, 1]
        return {"brightness": float(fake - real)}


if __name__ == "__main__":
    fake, real = sys.argv[1:]
    print(text_table(gankit.evaluate(fake, real, ["brightness", "kid"], "pixels")))
