"""Stages made quick, for tests of when files are written and not of what is in them.

In place of the ResNet34 of 85 megabytes there is a network of some kilobytes, trained in one thread; of figures only
one pixel is drawn.
"""

import io

from PIL import Image
from torchvision.models.resnet import BasicBlock, ResNet

from emcurate.classifier import network, plots, training
from emcurate.trimming import balance

NARROWER = 32  # times; a ResNet's layers have 64 to 512 channels


class SmallResNet(ResNet):
    """A ResNet with one block in each layer, and few channels."""

    def __init__(self):
        super().__init__(BasicBlock, [1, 1, 1, 1])

    def _make_layer(self, block, planes, blocks, stride=1, dilate=False):
        return super()._make_layer(block, planes // NARROWER, blocks, stride, dilate)


def make_stages_quick(patch=setattr):
    """Do so from now on; `patch` may be that of pytest's monkeypatch, which undoes it."""
    patch(network, "resnet34", lambda weights: SmallResNet())
    patch(network, "FEATURES", network.FEATURES // NARROWER)
    # Threads that wait for each other at every step of so little work take most of its time.
    patch(training, "count_training_threads", lambda: 1)
    for module in (plots, balance):
        patch(module, "encode_figure", _encode_pixel)


def _encode_pixel(figure):
    buffer = io.BytesIO()
    Image.new("L", (1, 1)).save(buffer, "PNG")
    return buffer.getvalue()
