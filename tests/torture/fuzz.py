"""Have atheris look for bytes that a parser of ours answers with anything but a result or an `InputError`.

Each parser is fuzzed by a process of its own for some seconds, from good files and crafted ones, guided by which lines
of the parser they reach. What was found is told once a place in the code, with the bytes that led there.

Needs atheris (`pip install -e .[fuzz]`), which there is for Linux and some versions of Python; skipped without it.

Example: python -m tests.torture.fuzz --seconds 60 --only NRRD
"""

import argparse
import contextlib
import functools
import importlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SECONDS = 60  # for each parser, in the long form
LARGEST_BYTES = 1 << 14
INPUT_SECONDS, INPUT_MB = 20, 2048  # that one input may take

# Where the parser's files lie, if there is such a file system, and in it the inputs that lines were reached with.
MEMORY, CORPUS = "/dev/shm", "corpus"

SKIPPED = "skipped: atheris is not installed (pip install -e .[fuzz]; there are wheels for Linux, CPython 3.11 to 3.13)"


@dataclass(frozen=True)
class Target:
    """A parser.

    Attributes
    ----------
    modules : tuple of str
        What is instrumented, so that new lines in it count as progress.
    parse : callable
        Takes the bytes, and a directory to write them into.
    seeds : callable
        Returns good and crafted inputs.
    """

    modules: tuple[str, ...]
    parse: Callable[[bytes, Path], object]
    seeds: Callable[[], list[bytes]]


def _written(data, directory, name):
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


@functools.cache
def _module(name):
    return importlib.import_module(name)


def _opens(name):
    """Return what opens a volume of this name, and reads one of its planes."""

    def parse(data, directory):
        volume = _module("emcurate.volumes.volume").open_volume(_written(data, directory, name))
        if volume.size < 1 << 20:
            volume.read(slice(0, 1))

    return parse


def _in_store(metadata, beside):
    """Return what opens a directory store of which the bytes are the metadata."""

    def parse(data, directory):
        for name, content in beside().items():
            if not (directory / name).exists():
                _written(content, directory, name)
        _written(data, directory, metadata)
        _module("emcurate.volumes.volume").open_volume(directory / metadata.partition("/")[0]).read(slice(0, 1))

    return parse


def _parse_name(data, _):
    naming = _module("emcurate.naming")
    text = data.decode("utf-8", "surrogateescape")
    for parse in (naming.parse_section, naming.parse_patch, naming.parse_subvolume):
        try:
            found = parse(text)
        except naming.GrammarError:
            continue
        if parse(found.stem) != found:
            raise AssertionError(f"{found!r} is called {found.stem!r}, which means something else")
    with contextlib.suppress(ValueError):
        naming.check_dataset_name(naming.strip_extension(text))
    names = _module("emcurate.fetching.safe_names")
    with contextlib.suppress(names.EscapeError):
        if ".." in Path(names.check_relative(text)).parts or Path(names.check_relative(text)).is_absolute():
            raise AssertionError(f"{text!r} leads out")
    _module("emcurate.images.units").nanometres_per(text)
    _module("emcurate.patches.shards").dataset_of_shard(text)
    _module("emcurate.patches.list_names").patch_name(text)


def _parse_list(data, directory):
    paths = _module("emcurate.patches.pathlists").PathList(_written(data, directory, "l.npz/0.npy").parent)
    _module("emcurate.patches.list_names").tell_apart(list(paths))


def _parse_directories(data, directory):
    import tifffile

    tiffs = _module("emcurate.images.tiff_directories")
    path = _written(data, directory, "a.tif")
    try:
        form = tifffile.TiffFile(path, _multifile=False, is_ndtiff=False).tiff
    except Exception:  # noqa: BLE001 - what tifffile says of it is another target's
        return
    tiffs.read_directories(path, form)


def _parse_ledger(data, directory):
    ledgers, lines = _module("emcurate.running.ledger_file"), _module("emcurate.running.ledger_lines")
    path = _written(data, directory, ".emcurate/stage.jsonl")
    for line in lines.read_lines(path):
        for output in lines.read_outputs(line):
            if ".." in Path(output.name).parts or Path(output.name).is_absolute():
                raise AssertionError(f"{output.name!r} leads out")
    ledgers.LedgerFile(path)
    ledgers.read_headers(directory)


def _parse_coco(data, directory):
    coco = _module("emcurate.trimming.coco")
    path = _written(data, directory, "a.json")
    found = coco.read_annotations([path])
    coco.select_records([path], list(found.images)[:3] if hasattr(found, "images") else [])


def _parse_tar(data, directory):
    path = _written(data, directory, "a-00000.tar")
    _module("emcurate.patches.shards").read_member(f"{path}/vol-LOC-0_2_0_0.tiff")


def _originals(*formats):
    from tests.torture.originals import make_originals

    return [o.data for o in make_originals(Path("/nonexistent")) if o.format.startswith(formats)]


def _crafted(maker):
    """Return the small first files of crafted cases."""
    module, name = maker.split(":")
    cases = getattr(importlib.import_module(f"tests.torture.{module}"), name)(Path("/nonexistent"))
    found = (next(iter(files.values())) for _, files in cases)
    return [data for data in found if isinstance(data, bytes) and len(data) <= LARGEST_BYTES]


def _store(make, metadata):
    from tests.torture import originals

    return {name.replace("CASE00", "a"): data for name, data in getattr(originals, make[0])(*make[1:]).items()}[
        metadata
    ]


def _beside(*make):
    @functools.cache
    def files():
        from tests.torture import originals

        return {name.replace("CASE00", "a"): data for name, data in getattr(originals, make[0])(*make[1:]).items()}

    return files


def _image(suffix):
    return lambda data, directory: _module("emcurate.images.reading").read_image(
        _written(data, directory, f"a{suffix}")
    )


_FORMATS = "emcurate.volumes.formats"

TARGETS = {
    "names": Target(
        ("emcurate.naming", "emcurate.fetching.safe_names", "emcurate.images.units", "emcurate.patches.list_names"),
        _parse_name,
        lambda: [
            b"fly-LOC-0_042_224_0",
            b"a-LOC-2d-b_0_0",
            b"v-LOC-3d-ISO-0_0_0_zyx_1x2x3",
            b"a/../b",
            b"a-00000.tar",
            b"um",
        ],
    ),
    "MRC": Target(
        (f"{_FORMATS}.mrc",), _opens("a.mrc"), lambda: _originals("MRC") + _crafted("crafted_volumes:make_mrcs")
    ),
    "NRRD": Target(
        (f"{_FORMATS}.nrrd",), _opens("a.nrrd"), lambda: _originals("NRRD") + _crafted("crafted_volumes:make_nrrds")
    ),
    "NIfTI": Target(
        (f"{_FORMATS}.nifti",), _opens("a.nii"), lambda: _originals("NIfTI") + _crafted("crafted_volumes:make_niftis")
    ),
    "TIFF directories": Target(
        ("emcurate.images.tiff_directories",),
        _parse_directories,
        lambda: _originals("TIFF") + _crafted("crafted_tiffs:make_sections"),
    ),
    "TIFF stacks": Target(
        ("emcurate.images.tiff_directories", "emcurate.images.tiff_files", f"{_FORMATS}.tiff"),
        _opens("a.tif"),
        lambda: _originals("TIFF") + _crafted("crafted_tiffs:make_sections"),
    ),
    "TIFF images": Target(
        ("emcurate.images.tiff_directories", "emcurate.images.tiff_files", "emcurate.images.tiff_pages"),
        _image(".tif"),
        lambda: _originals("TIFF") + _crafted("crafted_tiffs:make_sections"),
    ),
    "PNG": Target(
        ("emcurate.images.png_chunks", "emcurate.images.reading"),
        _image(".png"),
        lambda: _originals("PNG") + _crafted("crafted_images:make_images"),
    ),
    "Netpbm": Target(("emcurate.images.netpbm", "emcurate.images.reading"), _image(".pgm"), lambda: _originals("P")),
    "containers of videos": Target(
        ("emcurate.volumes.containers",),
        lambda data, directory: _module("emcurate.volumes.containers").find_missing(_written(data, directory, "a.avi")),
        lambda: [data[:LARGEST_BYTES] for data in _originals("AVI", "MP4")] + _crafted("crafted_images:make_videos"),
    ),
    ".npy": Target(
        ("emcurate.contents",),
        lambda data, directory: _module("emcurate.contents").read_npy(_written(data, directory, "a.npy")),
        lambda: _originals("NPY"),
    ),
    "path lists": Target(
        ("emcurate.patches.pathlists", "emcurate.patches.list_names"), _parse_list, lambda: _originals("NPY")
    ),
    "ledgers": Target(
        ("emcurate.running.ledger_file", "emcurate.running.ledger_lines"),
        _parse_ledger,
        lambda: [
            b'{"stage": "s", "version": "1", "parameters": {"a": 1}, "product": "p"}\n{"input": "a", "state": "done", '
            b'"outputs": [["a.tiff", 5, 7, "00"]], "source": "/a", "root": "/", "dataset": "a", "strangers": ["b"]}\n'
        ],
    ),
    "logs of labels": Target(
        ("emcurate.patches.label_log",),
        lambda data, directory: (
            _module("emcurate.patches.label_log").LabelLog(_written(data, directory, "l.jsonl")).read_new()
        ),
        lambda: _originals("log of labels"),
    ),
    "cards": Target(
        ("emcurate.classifier.card",),
        lambda data, directory: _module("emcurate.classifier.card").describe_weights(
            _written(data, directory, "w.json") and _written(b"weights", directory, "w.pth")
        ),
        lambda: _originals("card"),
    ),
    "COCO": Target(
        ("emcurate.trimming.coco",), _parse_coco, lambda: _originals("COCO") + _crafted("crafted_lists:make_cocos")
    ),
    "csv": Target(
        ("emcurate.trimming.table",),
        lambda data, directory: _module("emcurate.trimming.table").read_table(_written(data, directory, "a.csv")),
        lambda: _originals("csv") + _crafted("crafted_lists:make_csvs"),
    ),
    "shards": Target(("emcurate.patches.shards",), _parse_tar, lambda: _originals("tar")),
    "tables": Target(
        ("emcurate.patches.tables",),
        lambda data, directory: _module("emcurate.patches.tables").read_hashes(
            _written(data, directory, "a_patches.parquet")
        ),
        lambda: _originals("Parquet"),
    ),
    "Zarr 2": Target(
        (f"{_FORMATS}.ome_zarr", f"{_FORMATS}.chunked", f"{_FORMATS}.stores"),
        _in_store("a.zarr/.zarray", _beside("make_plain_zarr", 2)),
        lambda: [_store(("make_plain_zarr", 2), "a.zarr/.zarray")],
    ),
    "Zarr 3": Target(
        (f"{_FORMATS}.ome_zarr", f"{_FORMATS}.chunked", f"{_FORMATS}.stores"),
        _in_store("a.zarr/zarr.json", _beside("make_plain_zarr", 3)),
        lambda: [_store(("make_plain_zarr", 3), "a.zarr/zarr.json")],
    ),
    "OME-Zarr": Target(
        (f"{_FORMATS}.ome_zarr", f"{_FORMATS}.chunked", f"{_FORMATS}.stores"),
        _in_store("a.zarr/.zattrs", _beside("make_ome_zarr", "0.4")),
        lambda: [_store(("make_ome_zarr", "0.4"), "a.zarr/.zattrs")],
    ),
    "N5": Target(
        (f"{_FORMATS}.n5", f"{_FORMATS}.chunked", f"{_FORMATS}.stores"),
        _in_store("a.n5/attributes.json", _beside("make_plain_n5")),
        lambda: [_store(("make_plain_n5",), "a.n5/attributes.json")],
    ),
    "precomputed": Target(
        (f"{_FORMATS}.precomputed", f"{_FORMATS}.chunked", f"{_FORMATS}.stores"),
        _in_store("a.precomputed/info", _beside("make_precomputed")),
        lambda: [_store(("make_precomputed",), "a.precomputed/info")],
    ),
}


def fuzz(name, seconds, seed, work):
    """Fuzz a parser in this process, which does not come back; what is found is written into ``work/found``."""
    import atheris

    target = TARGETS[name]
    with atheris.instrument_imports(include=list(target.modules)):
        for module in target.modules:
            importlib.import_module(module)
    from emcurate.errors import InputError

    warnings.simplefilter("ignore")
    place, found = work / "place", work / "found"
    place.mkdir()
    found.mkdir()
    known = set()

    def try_one(data):
        try:
            target.parse(data, place)
        except InputError as error:
            if "please report" in str(error) or "\n" in str(error):
                note(error, data)
        except Exception as error:  # noqa: BLE001 - it is what is looked for
            note(error, data)

    def note(error, data):
        last = next(
            (f for f in reversed(traceback.extract_tb(error.__traceback__)) if "/emcurate/" in f.filename), None
        )
        where = f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}" if last else type(error).__name__
        if where not in known:
            known.add(where)
            (found / f"{len(known)}.bin").write_bytes(data)
            line = {"where": where, "says": str(error)[:300], "bytes": f"{len(known)}.bin"}
            with open(found / "found.jsonl", "a") as file:
                file.write(json.dumps(line) + "\n")

    flags = [f"-max_total_time={seconds}", f"-seed={seed}", f"-max_len={LARGEST_BYTES}", f"-timeout={INPUT_SECONDS}"]
    flags += [f"-rss_limit_mb={INPUT_MB}", f"-artifact_prefix={work}/", "-close_fd_mask=0", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], *flags, str(work / CORPUS)], try_one)
    atheris.Fuzz()


def run(name, seconds, seed, keep):
    """Fuzz a parser in a process of its own; return what was found, and how many inputs were tried."""
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=MEMORY if os.access(MEMORY, os.W_OK) else None) as directory:
        work = Path(directory)
        (work / CORPUS).mkdir()
        for number, data in enumerate(TARGETS[name].seeds()):
            (work / CORPUS / f"{number}").write_bytes(data[:LARGEST_BYTES])
        words = ["--target", name, "--seconds", str(seconds), "--seed", str(seed), "--work", directory]
        command = [sys.executable, "-m", "tests.torture.fuzz", *words]
        limit = seconds + 3 * INPUT_SECONDS + 60
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", timeout=limit, env=environment
            )
            said, status = done.stderr, done.returncode
        except subprocess.TimeoutExpired as error:
            said, status = (error.stderr or b"").decode(errors="replace"), None
        notes = work / "found" / "found.jsonl"
        found = [json.loads(line) for line in notes.read_text().splitlines()] if notes.exists() else []
        for artifact in [*work.glob("timeout-*"), *work.glob("oom-*"), *work.glob("crash-*"), *work.glob("leak-*")]:
            found.append({"where": artifact.name.partition("-")[0], "says": said[-300:], "bytes": str(artifact)})
        if status != 0 and not found:
            found.append({"where": f"status {status}", "says": said[-1500:], "bytes": ""})
        if keep and found:
            place = keep / name.replace(" ", "_")
            place.mkdir(parents=True, exist_ok=True)
            for file in [*(work / "found").glob("*"), *work.glob("*-*")]:
                if file.is_file():
                    (place / file.name).write_bytes(file.read_bytes())
    tried = [line.split()[-1] for line in said.splitlines() if line.startswith("stat::number_of_executed_units")]
    return found, int(tried[0]) if tried else 0


def main(argv=None):
    """Fuzz the parsers; return 1 if anything was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="of all that is left to chance (default: 0)")
    parser.add_argument("--seconds", type=int, default=SECONDS, help="for each parser (default: %(default)s)")
    parser.add_argument("--only", default="", metavar="WORDS", help="only parsers with these words in their names")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the bytes that something was found with")
    parser.add_argument("--target", help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    a = parser.parse_args(argv)
    if importlib.util.find_spec("atheris") is None:
        print(SKIPPED)
        return 0
    if a.target:
        fuzz(a.target, a.seconds, a.seed or 1, a.work)
        return 0
    count = 0
    for name in TARGETS:
        if a.only not in name:
            continue
        begun = time.monotonic()
        found, tried = run(name, a.seconds, a.seed, a.keep)
        print(f"{name}: {tried:,} inputs, {len(found)} findings, {time.monotonic() - begun:.0f} s", flush=True)
        for line in found:
            print(
                f"  FOUND {line['where']}: {line['says']} ({line['bytes']})".encode(
                    "utf-8", "backslashreplace"
                ).decode()
            )
        count += len(found)
    print(f"seed {a.seed}: {count} findings")
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
