"""Make a small synthetic corpus that looks like electron microscopy, with known truth.

Reads:   nothing.
Writes:  OUTDIR/images/, 2D images of 8 and 16 bits, in RGB, and a group directory of near-identical frames;
         OUTDIR/volumes/, an isotropic TIFF, an anisotropic NRRD with repeated slices, a signed MRC;
         OUTDIR/videos/, an .avi and an .mp4;
         OUTDIR/truth/{dataset}.npz, for each dataset which pixels are informative and which slices repeat others.
Example: python demo/make_corpus.py demo/output/corpus
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import mrcfile
import nrrd
import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image

from emcurate import cli
from emcurate.files import make_output_directory
from emcurate.running.report import Report
from emcurate.writing import atomic_path

STAGE = "make_corpus"
SEED = 7

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

# Grey levels, 0 black to 1 white, of what a heavy-metal stained section shows.
RESIN, CYTOPLASM, MEMBRANE, MITOCHONDRION, LUMEN = 0.86, 0.64, 0.16, 0.42, 0.78
CHARGING = 1.0
NOISE = 0.05  # standard deviation of the detector's noise, in grey levels of 0..1

ISOTROPIC_NM = 8.0
ANISOTROPIC_NM = (50.0, 8.0, 8.0)
MRC_ANGSTROM = 80.0
IMOD_STAMP = 1146047817  # the number by which IMOD marks an MRC header as its own
IMOD_STAMP_BYTE = 152  # where it stands
IMOD_SIGNED_BYTES = 1  # bit 0 of the word after it: the bytes are signed
VIDEO_FRAMES_PER_SECOND = 10


@dataclass(frozen=True)
class Scene:
    """A piece of the synthetic world, all arrays (z, y, x).

    `pixels` are grey levels 0..1, `informative` tells where there is tissue that can be seen, `source` says for
    each slice which slice it repeats (its own index where it repeats none).
    """

    pixels: FloatArray
    informative: BoolArray
    source: npt.NDArray[np.int64]


def make_smooth_field(shape: tuple[int, ...], scale: Sequence[float], rng: np.random.Generator) -> FloatArray:
    """Return Gaussian noise smoothed to a length of `scale` pixels an axis, with mean 0 and standard deviation 1."""
    spectrum = np.fft.rfftn(rng.standard_normal(shape, dtype=np.float32))
    for axis, (size, sigma) in enumerate(zip(shape, scale, strict=True)):
        last = axis == len(shape) - 1
        frequency = np.fft.rfftfreq(size) if last else np.fft.fftfreq(size)
        falloff = np.exp(-2 * (np.pi * sigma * frequency) ** 2)
        spectrum *= falloff.reshape([-1 if i == axis else 1 for i in range(len(shape))])
    field = np.fft.irfftn(spectrum, shape, axes=range(len(shape)))
    return ((field - field.mean()) / (field.std() or 1)).astype(np.float32)


def make_tissue(
    shape: tuple[int, int, int], rng: np.random.Generator, *, flatness: float = 1.0, emptiness: float = 0.35
) -> tuple[FloatArray, BoolArray]:
    """Return grey levels and the mask of tissue of a (z, y, x) block.

    Parameters
    ----------
    flatness : float
        How many times a slice is thicker than a pixel is wide.
    emptiness : float
        The part of the block that is empty resin.
    """

    def field(pixels: float) -> FloatArray:
        return make_smooth_field(shape, (pixels / flatness, pixels, pixels), rng)

    # Membranes lie where a smooth field changes sign: closed, thin, branching nowhere, as cells have them.
    cells = field(13)
    grey = np.full(shape, CYTOPLASM, np.float32) + 0.05 * field(2.5)
    mitochondria = (field(11) > 1.1) & (np.abs(cells) > 0.3)
    cristae = np.abs(field(2.2)) < 0.35
    grey[mitochondria] = MITOCHONDRION
    grey[mitochondria & cristae] = MEMBRANE
    vesicles = field(3.0)
    grey[(vesicles > 2.1) & ~mitochondria] = LUMEN
    grey[(np.abs(vesicles - 2.1) < 0.16) & ~mitochondria] = MEMBRANE
    grey[np.abs(cells) < 0.16] = MEMBRANE
    ground = field(60)
    tissue = ground > np.quantile(ground, emptiness)
    grey[~tissue] = RESIN
    return grey, tissue


def make_scene(
    shape: tuple[int, int, int],
    rng: np.random.Generator,
    *,
    flatness: float = 1.0,
    emptiness: float = 0.35,
    repeats: Sequence[tuple[int, int]] = (),
    charged: Sequence[int] = (),
) -> Scene:
    """Return a scene; slice `a` repeats slice `b` for each (a, b) of `repeats`, and `charged` slices are streaked."""
    grey, tissue = make_tissue(shape, rng, flatness=flatness, emptiness=emptiness)
    source = np.arange(shape[0])
    for again, original in repeats:
        grey[again], tissue[again], source[again] = grey[original], tissue[original], original
    for z in charged:
        streaks = np.repeat(rng.random((shape[1] // 4 + 1, 1)) < 0.7, 4, axis=0)[: shape[1]]
        bright = CHARGING - 0.15 * rng.random((shape[1], 1), dtype=np.float32)
        grey[z] = np.where(streaks, bright, 0.5 * grey[z] + 0.5)
        tissue[z] = False
    noisy = grey + NOISE * rng.standard_normal(shape, dtype=np.float32)
    return Scene(np.clip(noisy, 0, 1), tissue, source)


def drift(scene: Scene, frames: int, rng: np.random.Generator) -> Scene:
    """Return the first slice of a scene as frames of a film that all but stands still: fresh noise, no more."""
    still = cv2.GaussianBlur(scene.pixels[0], (0, 0), 1.0)
    noise = NOISE / 2 * rng.standard_normal((frames, *still.shape), dtype=np.float32)
    informative = np.repeat(scene.informative[:1], frames, axis=0)
    return Scene(np.clip(still + noise, 0, 1), informative, np.zeros(frames, np.int64))


def to_bits(pixels: FloatArray, bits: int) -> npt.NDArray[Any]:
    """Return grey levels as unsigned integers that use `bits` bits."""
    return np.rint(pixels * (2**bits - 1)).astype(np.uint8 if bits <= 8 else np.uint16)


def write_images(directory: Path, rng: np.random.Generator) -> dict[str, Scene]:
    """Write the 2D images; return the scene each dataset shows."""
    plain, deep, colour = (make_scene((1, 512, 512), rng) for _ in range(3))
    charged = make_scene((1, 512, 512), rng, charged=[0])
    frames = drift(make_scene((1, 256, 256), rng, emptiness=0.2), 8, rng)
    Image.fromarray(to_bits(plain.pixels[0], 8)).save(directory / "cortex 8 bit.png")
    tifffile.imwrite(directory / "müller_16bit.tif", to_bits(deep.pixels[0], 16))
    Image.fromarray(np.repeat(to_bits(colour.pixels[0], 8)[..., None], 3, axis=-1)).save(directory / "rgb.v1.png")
    Image.fromarray(to_bits(charged.pixels[0], 8)).save(directory / "charged.png")
    group = make_output_directory(directory / "still life")
    for i, frame in enumerate(frames.pixels):
        Image.fromarray(to_bits(frame, 8)).save(group / f"frame{i}.png")
    return {"cortex 8 bit": plain, "müller_16bit": deep, "rgb.v1": colour, "charged": charged, "still life": frames}


def write_volumes(directory: Path, rng: np.random.Generator) -> dict[str, Scene]:
    """Write the volumes; return the scene each dataset shows."""
    isotropic = make_scene((128, 192, 256), rng)
    anisotropic = make_scene(
        (20, 320, 320), rng, flatness=ANISOTROPIC_NM[0] / ANISOTROPIC_NM[1], repeats=[(7, 6), (8, 6)], charged=[13]
    )
    signed = make_scene((64, 128, 192), rng, emptiness=0.5)
    tifffile.imwrite(
        directory / "isotropic.tif",
        to_bits(isotropic.pixels, 8),
        imagej=True,
        resolution=(1000 / ISOTROPIC_NM, 1000 / ISOTROPIC_NM),
        metadata={"axes": "ZYX", "spacing": ISOTROPIC_NM / 1000, "unit": "um"},
    )
    # NRRD names its axes from the fastest on: x, y, z.
    directions = np.diag(ANISOTROPIC_NM[::-1])
    header = {"space dimension": 3, "space directions": directions, "space units": ["nm"] * 3, "encoding": "gzip"}
    nrrd.write(str(directory / "anisotropic.nrrd"), to_bits(anisotropic.pixels, 8).transpose(2, 1, 0), header)
    with mrcfile.new(directory / "signed.mrc", overwrite=True) as mrc:
        mrc.set_data((to_bits(signed.pixels, 8).astype(np.int16) - 128).astype(np.int8))
        mrc.voxel_size = MRC_ANGSTROM
    stamp = np.array([IMOD_STAMP, IMOD_SIGNED_BYTES], "<i4").tobytes()
    with open(directory / "signed.mrc", "r+b") as file:
        file.seek(IMOD_STAMP_BYTE)
        file.write(stamp)
    return {"isotropic": isotropic, "anisotropic": anisotropic, "signed": signed}


def write_videos(directory: Path, rng: np.random.Generator) -> dict[str, Scene]:
    """Write the videos; return the scene each dataset shows."""
    scenes = {}
    for name, codec, emptiness in (("drift.avi", "MJPG", 0.3), ("settling.mp4", "mp4v", 0.6)):
        scene = drift(make_scene((1, 192, 256), rng, emptiness=emptiness), 12, rng)
        height, width = scene.pixels.shape[1:]
        writer = cv2.VideoWriter(
            str(directory / name), cv2.VideoWriter_fourcc(*codec), VIDEO_FRAMES_PER_SECOND, (width, height)
        )
        for frame in to_bits(scene.pixels, 8):
            writer.write(np.repeat(frame[..., None], 3, axis=-1))
        writer.release()
        scenes[Path(name).stem] = scene
    return scenes


def write_truth(directory: Path, scenes: dict[str, Scene]) -> None:
    """Write what is true of each dataset: `informative` (z, y, x) bool and `source` (z,) int."""
    for name, scene in scenes.items():
        with atomic_path(directory / f"{name}.npz") as partial, open(partial, "wb") as file:
            np.savez_compressed(file, informative=scene.informative, source=scene.source)


def run(outdir: Path, *, seed: int = SEED) -> Report:
    """Make the corpus in `outdir`; see the module's docstring."""
    report = Report(STAGE)
    rng = np.random.default_rng(seed)
    writers = {"images": write_images, "volumes": write_volumes, "videos": write_videos}
    truth = make_output_directory(outdir / "truth")
    for name, write in writers.items():
        scenes = write(make_output_directory(outdir / name), rng)
        write_truth(truth, scenes)
        report.count(f"datasets of {name}", len(scenes))
    report.note(f"corpus: {outdir}")
    return report


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = cli.make_parser(__doc__, "make_corpus.py")
    parser.add_argument("outdir", type=cli.output_directory, metavar="OUTDIR", help="directory for the corpus")
    parser.add_argument(
        "--seed",
        type=cli.natural_int,
        default=SEED,
        metavar="N",
        help="seed of everything random (default: %(default)s)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; return its exit status."""
    return cli.run_stage(run, build_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
