"""The arms of a study of a classifier."""

from gankit.studies.kinds import COPIES, GENERATOR, KINDS, Arm

BASELINE, BAR = "baseline", "bar"  # roles: all others are compared with the baseline, and then with the bar to beat

ARMS = {
    arm.name: arm
    for arm in (
        Arm("real", "real images as they come", KINDS["real"], role=BASELINE),
        Arm("oversampling", "real images, classes drawn equally often", KINDS["oversampling"]),
        Arm("classical", "real images with classical augmentation, classes weighted in the loss: the bar to beat",
            KINDS["classical-weights"], role=BAR),
        Arm("synthetic", "real images and generated ones of the rare class", KINDS["synthetic"], GENERATOR),
        Arm("classical-synthetic", "real and generated images with classical augmentation, no weights of classes",
            KINDS["classical-synthetic"], GENERATOR),
        Arm("copies", "a control: real images and, in place of generated ones, noised copies of them, which add no "
            "information", KINDS["synthetic"], COPIES),
    )
}  # fmt: skip
