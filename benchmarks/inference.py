"""Measure how fast patches are scored: images a second of each mode beside plain float32, and equal decisions.

Every mode scores the same patches in the same run, several rounds in turn, and each mode's best round counts. The
first rows time the network alone; the last time classify_nn.py's own way from files to scores, and before it what a
plain loop takes for that. Without --weights the network is random, its head stretched so that scores spread around
the threshold, which is harder on equal decisions than a trained one.

Reads:   --fpaths, a path list of real patches, and --weights; by default neither
Writes:  generated patches and scores, in a temporary directory that is removed
Example: python benchmarks/inference.py --device cuda
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from history import add_flags, compare

from emcurate.classifier.batches import BatchJobs, read_batch
from emcurate.classifier.card import Weights, describe_weights
from emcurate.classifier.computing import Computing
from emcurate.classifier.score_store import patch_keys
from emcurate.classifier.scoring import score_patches
from emcurate.images.sections import write_section
from emcurate.patches.pathlists import PathList
from emcurate.running.jobs import Workers, default_processes
from emcurate.running.report import Report

if __name__ != "__mp_main__":  # the processes that decode need none of these, and would wait seconds for them
    import torch
    from torch import nn

    from emcurate.classifier.inference import BATCH_GPU, Scorer, choose_device, choose_precision, use_threads
    from emcurate.classifier.network import build_network, load_classifier, save_weights
    from emcurate.classifier.transforms import evaluation_input


ROUNDS = 2
PLAIN_BATCH = 64  # that of the published recipe
COUNT = {"cpu": 256, "mps": 1024, "cuda": 8192}

# Spread of the random network's logits: about one patch in a hundred is then within 0.01 of the threshold.
LOGIT_SPREAD = 3.0
QUARTILES_OF_NORMAL = 1.349  # from the lower to the upper, in standard deviations

Score = Callable[[np.ndarray], np.ndarray]


def write_patches(directory: Path, count: int, side: int = 224) -> list[str]:
    """Write patches between flat noise and strong texture."""
    random = np.random.default_rng(0)
    paths = []
    for number in range(count):
        grain = cv2.GaussianBlur(random.normal(0, 1, (side, side)).astype(np.float32), (0, 0), random.uniform(1, 9))
        patch = random.uniform(60, 190) + random.uniform(0, 60) * grain / grain.std()
        path = directory / f"bench-LOC-0_{number:05d}_0_0.tiff"
        write_section(path, np.clip(patch + random.normal(0, 4, patch.shape), 0, 255).astype(np.uint8))
        paths.append(str(path))
    return paths


def random_classifier(pixels: np.ndarray, device: str) -> nn.Module:
    """Return a network with random weights whose logits on these patches lie around 0, half of them above."""
    torch.manual_seed(0)
    network = build_network().to(device)
    inputs = evaluation_input(torch.from_numpy(pixels).to(device), Weights(Path(), "").input_format)
    with torch.no_grad():
        network.train()
        for norm in (module for module in network.modules() if isinstance(module, nn.BatchNorm2d)):
            norm.momentum = None
        network(inputs)
        network.eval()
        logits = network(inputs)
        low, middle, high = torch.quantile(logits.float().squeeze(1), torch.tensor([0.25, 0.5, 0.75])).tolist()
        # By quartiles: a few patches far out would leave all others huddled at the threshold.
        scale = LOGIT_SPREAD * QUARTILES_OF_NORMAL / (high - low)
        network.fc.weight *= scale
        network.fc.bias.copy_((network.fc.bias - middle) * scale)
    return network.cpu()


def plain_scorer(network: nn.Module, weights: Weights, device: str, layout: torch.memory_format) -> Score:
    """Return a function that scores in eager float32."""
    network = network.to(device).to(memory_format=layout).eval()
    size = PLAIN_BATCH if device == "cpu" else BATCH_GPU

    @torch.inference_mode()
    def score(pixels: np.ndarray) -> np.ndarray:
        parts = []
        for start in range(0, len(pixels), size):
            batch = torch.from_numpy(pixels[start : start + size]).to(device)
            inputs = evaluation_input(batch, weights.input_format).contiguous(memory_format=layout)
            parts.append(torch.sigmoid(network(inputs)).squeeze(1).cpu())
        return torch.cat(parts).numpy()

    return score


def best_times(modes: dict[str, Callable[[], np.ndarray]], rounds: int) -> dict[str, tuple[float, np.ndarray]]:
    """Return each mode's shortest time in seconds and its scores; the modes take turns."""
    best: dict[str, tuple[float, np.ndarray]] = {}
    for number in range(rounds + 1):
        for name, mode in modes.items():
            start = time.perf_counter()
            scores = mode()
            seconds = time.perf_counter() - start
            # The first round only warms up.
            if number and (name not in best or seconds < best[name][0]):
                best[name] = seconds, scores
    return best


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["auto", "cuda", "mps", "cpu"], default="auto")
    parser.add_argument("--weights", type=Path, help="weights from train_nn.py")
    parser.add_argument("--fpaths", type=Path, help="path list of real patches")
    parser.add_argument("--count", type=int, help="patches to score")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("-p", "--processes", type=int, default=default_processes())
    add_flags(parser)
    a = parser.parse_args(argv)
    device = choose_device(a.device)
    use_threads(a.processes)
    count = a.count or COUNT[device]
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        paths = list(PathList(a.fpaths))[:count] if a.fpaths else write_patches(work, count)
        weights = describe_weights(a.weights) if a.weights else Weights(work / "random.pth", "random")
        size = weights.input_format.image_size
        jobs = BatchJobs(paths, np.arange(len(paths)), len(paths), size)
        pixels = read_batch(jobs[0]).pixels
        if a.weights is None:
            save_weights(weights.path, random_classifier(pixels[:256], device).state_dict())
        fast = choose_precision(device)

        def plain(layout: torch.memory_format) -> Score:
            return plain_scorer(load_classifier(weights.path), weights, device, layout)

        def folded(precision: str) -> Score:
            return Scorer(load_classifier(weights.path), weights.input_format, device, precision).score

        eager, last = plain(torch.contiguous_format), plain(torch.channels_last)
        networks = {
            "plain float32": eager,
            "channels last": last,
            "and batch norm folded": folded("float32"),
        }
        if fast != "float32":
            networks[f"and {fast}"] = folded(fast)

        def from_files(score: Score) -> np.ndarray:
            parts = BatchJobs(paths, np.arange(len(paths)), PLAIN_BATCH, size)
            return np.concatenate([score(read_batch(part).pixels) for part in parts])

        def whole_stage() -> np.ndarray:
            computing = Computing(weights, device, fast, Workers(a.processes))
            with tempfile.TemporaryDirectory(dir=work) as stores:
                scores: np.ndarray = score_patches(
                    paths, patch_keys(paths, len(paths)), computing, weights.threshold, Path(stores), Report("bench")
                )
            return scores

        modes: dict[str, Callable[[], np.ndarray]] = {
            name: (lambda score=score: score(pixels)) for name, score in networks.items()
        }
        modes["from files: plain float32, one loop"] = lambda: from_files(eager)
        modes[f"from files: classify_nn.py -p {a.processes}"] = whole_stage
        best = best_times(modes, a.rounds)
    where = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine()
    print(f"{where}, {a.processes} processes, torch {torch.__version__}; {len(pixels)} patches of {size} pixels")
    print(f"{'mode':<40} {'images/s':>9} {'ratio':>6} {'equal decisions':>16} {'largest difference':>19}")
    truth = best["plain float32"][1]
    ratios = {}
    for name, (seconds, scores) in best.items():
        base = best["from files: plain float32, one loop" if name.startswith("from files") else "plain float32"][0]
        ratios[name] = base / seconds
        equal = np.mean((scores > weights.threshold) == (truth > weights.threshold))
        difference = np.abs(scores - truth).max()
        print(f"{name:<40} {len(pixels) / seconds:>9.1f} {base / seconds:>6.2f} {equal:>16.3%} {difference:>19.5f}")
    compare("inference", f"{device}, {len(pixels)} patches of {size}, -p {a.processes}", ratios, a)


if __name__ == "__main__":
    main()
