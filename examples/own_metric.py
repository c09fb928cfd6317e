"""A metric of one's own: how much brighter generated images are than real ones."""

import sys

import numpy as np

import gankit
from gankit.evaluation.tables import text_table
from gankit.interfaces import Rows


def brightness(rows: Rows) -> float:
    return float(np.concatenate([block.mean((1, 2, 3)) for block in rows.image_blocks()]).mean())


@gankit.metrics.register("brightness")
class Brightness(gankit.Metric):
    """Difference of mean grey levels (0 to 255), generated less real; 0 is right."""

    needs = ("images",)

    def compute(self, real: Rows, fake: Rows) -> dict[str, float]:
        return {"brightness": brightness(fake) - brightness(real)}


if __name__ == "__main__":
    fake, real = sys.argv[1:]
    print(text_table(gankit.evaluate(fake, real, ["brightness", "kid"], "pixels")))
