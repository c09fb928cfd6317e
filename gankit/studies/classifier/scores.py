"""The name that `gankit.evaluation.classification` had before: for scripts that import it from here."""

from gankit.evaluation.classification import *  # noqa: F403
