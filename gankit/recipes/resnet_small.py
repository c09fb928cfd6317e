"""The recipe resnet with a fourth of its channels, for CPUs; docs/measured/demo-search.md has its networks at 32x32."""

from gankit.recipes.resnet import ResNet


class SmallResNet(ResNet):
    """The recipe `resnet` with a fourth of its channels, one critic update a step and higher rates, for CPUs."""

    purpose = "any pictures, without a GPU"
    time = "hours on two CPU cores at 32x32"
    proposed_on = ("cpu", "mps")
    channels = (128, 16)
    rate = 5e-4
    critic_steps = 1
