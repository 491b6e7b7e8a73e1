"""A network of a few kilobytes in place of the ResNet34 of 85 megabytes, and one thread that trains it.

For tests of when files are written, not of what is learnt.
"""

from torchvision.models.resnet import BasicBlock, ResNet

from emcurate.classifier import network, training

NARROWER = 32  # times; a ResNet's layers have 64 to 512 channels


class SmallResNet(ResNet):
    """A ResNet with one block in each layer, and few channels."""

    def __init__(self):
        super().__init__(BasicBlock, [1, 1, 1, 1])

    def _make_layer(self, block, planes, blocks, stride=1, dilate=False):
        return super()._make_layer(block, planes // NARROWER, blocks, stride, dilate)


def make_networks_small(patch=setattr):
    """Let the classifier build such networks from now on; `patch` may be pytest's ``monkeypatch.setattr``."""
    patch(network, "resnet34", lambda weights: SmallResNet())
    patch(network, "FEATURES", network.FEATURES // NARROWER)
    # Threads that wait for each other at every step of so little work take most of its time.
    patch(training, "count_training_threads", lambda: 1)
