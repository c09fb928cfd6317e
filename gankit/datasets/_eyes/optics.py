"""Where limbus, pupil and corneal reflex stand for a given deviation: the Hirschberg relation of every layout.

The eye turns about a centre 13.5 mm behind the corneal apex. The limbus lies 10.9 mm, the entrance pupil 10.6 mm and
the corneal centre of curvature (which carries the first Purkinje image of a flash beside the lens) 5.7 mm before it,
so the reflex moves against the iris: 5.24 sin(theta) mm seen from the limbus and 4.88 sin(theta) mm seen from the
pupil (Barry and Backes, IOVS 1997;38:2597), here scaled to each subject's Hirschberg ratio.
"""

import numpy as np
from numpy.typing import NDArray

from gankit.datasets._eyes.subjects import Subjects

Array = NDArray[np.float64]

LIMBUS_ARM = 10.9
LIMBUS_TO_REFLEX = 5.24
PUPIL_TO_REFLEX = 4.88
# Lids and canthi lie about as far before the rotation centre as the limbus, so a turned head carries them along.
LID_ARM = 11.0
# +1 where temporal is towards the right of the picture: the subject's right eye is seen on the left.
TEMPORAL = np.array([-1.0, 1.0])


def eye_positions(subjects: Subjects) -> tuple[Array, Array, Array, Array]:
    """Turn both eyes: the fixing eye shows kappa alone, the other also carries the whole deviation.

    Returns:
        The horizontal rotation (n, 2) of right and left eye in degrees, temporal positive; and (2, n, 2) the places of
        limbus, pupil and reflex, mm temporal and up from the projection of the rotation centre onto the lids.
    """
    deviating = np.arange(2) == subjects["laterality"][:, None]
    turn = np.degrees(np.arctan(subjects["deviation"] / 100))[:, None] * deviating
    theta = subjects["kappa"][:, None] + turn + TEMPORAL * subjects["gaze_h"][:, None]
    gaze = np.stack([np.sin(np.radians(theta)), np.sin(np.radians(subjects["gaze_v"]))[:, None] * np.ones(2)])
    # 100 PD of a small angle per 4.88 mm is the ratio 20.5 PD/mm, seen from the pupil.
    scale = (100 / PUPIL_TO_REFLEX / subjects["hirschberg_ratio"])[:, None]
    limbus = LIMBUS_ARM * gaze
    limbus[0] -= TEMPORAL * LID_ARM * np.sin(np.radians(subjects["yaw"]))[:, None]  # the turned head's lids
    reflex = limbus - scale * LIMBUS_TO_REFLEX * gaze
    off_axis = np.stack([-subjects["pupil_nasal"], subjects["pupil_up"]])[:, :, None]
    return theta, limbus, reflex + scale * PUPIL_TO_REFLEX * gaze + off_axis, reflex
