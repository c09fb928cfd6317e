"""What tables show about a value besides its name."""

from typing import NamedTuple


class Meaning(NamedTuple):
    """How to read a value.

    Attributes:
        words: what it is, in a few words; empty where that is clear from other rows.
        better: "lower", "higher", or the best value, such as "1"; empty where none of these applies.
        share: whether it is a mean of numbers in [0, 1]; the variance of these numbers is then at most
            value * (1 - value).
    """

    words: str = ""
    better: str = ""
    share: bool = False
