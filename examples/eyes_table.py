"""Print the founding paper's table of image counts by selection rate, for the simulated raters of the data set `eyes`.

No picture is rendered, because the table depends only on subjects and raters.
"""

import numpy as np

from gankit.datasets.eyes import Eyes

PAPER = {"exotropia": (1250, 1175, 1067, 938), "esotropia": (451, 412, 367, 316), "normal": (999, 959, 886, 784)}
RATES = (0.0, 0.6, 0.7, 0.8)
PANELS = 200


def table(eyes: Eyes) -> np.ndarray:
    """Images of each class (rows) at or above each selection rate (columns)."""
    # Selection rates are tenths, so half a tenth of slack is safe from rounding.
    kept = eyes.agreement[:, None] > np.array(RATES) - 0.05
    return np.stack([kept[eyes.labels == label].sum(axis=0) for label in range(3)])


default = table(Eyes())
others = np.stack([table(Eyes(panel=panel)) for panel in range(PANELS)])
print(f"{'class':10}{'':9}" + "".join(f"{'none' if rate == 0 else f'{rate:.0%}':>14}" for rate in RATES))
for name, paper, ours, mean, spread in zip(
    PAPER, PAPER.values(), default, others.mean(axis=0), others.std(axis=0), strict=True
):
    print(f"{name:10}{'paper':9}" + "".join(f"{count:14}" for count in paper))
    print(f"{'':10}{'eyes':9}" + "".join(f"{count:14}" for count in ours))
    print(f"{'':10}{'panels':9}" + "".join(f"{f'{m:.0f} +- {s:.0f}':>14}" for m, s in zip(mean, spread, strict=True)))
print(f"largest departure from the paper: {np.abs(default / np.array(list(PAPER.values())) - 1).max():.1%}")
