"""A network from its weights, ready to run: the classifier for scores, or any backbone for features."""

from __future__ import annotations

from emcurate.classifier.backbones import CLASSIFIER
from emcurate.classifier.card import Weights
from emcurate.classifier.inference import BatchRunner, Scorer
from emcurate.classifier.network import load_classifier


def load_runner(weights: Weights, device: str, precision: str, model: str | None) -> BatchRunner:
    """Return what runs batches through a network.

    Parameters
    ----------
    weights : Weights
    device, precision : str
        As `BatchRunner`.
    model : str or None
        The network whose features are wanted, as `emcurate.classifier.backbones` names it; None for scores.

    Raises
    ------
    InputError
        If the weights are not those of that network.
    """
    if model is None:
        return Scorer(load_classifier(weights.path), weights.input_format, device, precision)
    from emcurate.classifier.encoding import ClassifierEncoder, Encoder, load_body  # here, since scores need none

    if model == CLASSIFIER:
        return ClassifierEncoder(load_classifier(weights.path), weights.input_format, device, precision)
    return Encoder(load_body(model, weights), weights.input_format, device, precision)
