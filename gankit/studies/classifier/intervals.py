"""The name that `gankit.evaluation.paired` had before: for scripts that import it from here."""

from gankit.evaluation.paired import *  # noqa: F403
