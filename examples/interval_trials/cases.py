"""The cases of a simulated study, and how likely a classifier is right on them."""

import numpy as np

SHARES = np.array([0.46, 0.17, 0.37])  # exotropia, esotropia, normal, as the founding paper has them
SPREADS = {"alike": 0.0, "differ": 0.5, "differ much": 1.0}  # of seeds, in logits of whole classes


def chance(logits):
    return 1 / (1 + np.exp(-logits))


def mean_chance(logit, spread):
    """The mean of `chance` over a normal distribution around a logit, or around each of several."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    return chance(np.expand_dims(logit, -1) + spread * nodes) @ weights / weights.sum()


def cases_of(n, per_group):
    """Labels and groups of about n cases in three classes."""
    groups = np.maximum(2, np.round(SHARES * n / per_group)).astype(int)
    labels = np.repeat(np.repeat(np.arange(3), groups), per_group)
    return labels, np.arange(len(labels)) // per_group


def difficulty(random, group):
    """How easy cases are, in logits: 1 on average, with a part of their own and one that a patient's cases share."""
    return 1 + random.normal(0, 1, len(group)) + random.normal(0, 1, group.max() + 1)[group]
