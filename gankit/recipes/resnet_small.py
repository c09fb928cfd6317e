"""The recipe resnet with a fourth of its channels, for CPUs; docs/measured/demo-search.md has its trials."""

from gankit.recipes.resnet import ResNet


class SmallResNet(ResNet):
    """The recipe `resnet` with a fourth of its channels, smaller batches and higher rates, for CPUs.

    With colour or cutout networks take longer to learn, longer than a CPU has.
    """

    purpose = "any pictures, without a GPU"
    time = "hours on two CPU cores at 32x32"
    proposed_on = ("cpu", "mps")
    channels = (128, 16)
    rate = 1e-3
    critic_steps = 1
    largest_batch = 32
    moves_only = True
