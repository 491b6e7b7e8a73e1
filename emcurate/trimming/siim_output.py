"""What the directory of a trimmed SIIM-ISIC set holds beside its lists: the images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from emcurate.errors import InputError
from emcurate.fetching.foresight import foretell_way
from emcurate.fetching.gathering import Way, report_missing
from emcurate.fetching.placing import Link, Placement, place_all
from emcurate.files import make_output_directory, refuse_same_directory
from emcurate.running.jobs import Workers
from emcurate.running.report import Report
from emcurate.trimming.part import Part
from emcurate.trimming.siim import IMAGE_SUFFIXES, choose_image, find_images, image_stem

FOLDER = "images"
MISSING_LIST = "missing_images.txt"
LISTS = ("metadata_small.csv", "trim_report.csv", "metadata_train.csv", "metadata_test.csv", MISSING_LIST)


def choose_images(
    names: Sequence[str], directory: Path, apart_from: Path, report: Report
) -> tuple[list[Path], list[str]]:
    """Return the files of some images below a directory, and the names of those that have none.

    Names that two files claim are reported as failures. For `apart_from` see `find_images`.
    """
    found = find_images(directory, apart_from)
    files: list[Path] = []
    missing: list[str] = []
    for name in names:
        try:
            path = choose_image(name, found)
        except InputError as error:
            report.fail(error)
            continue
        if path is None:
            missing.append(name)
        else:
            files.append(path)
    return files, missing


def bring_images(
    chosen: Sequence[str],
    images: Path | None,
    part: Part,
    report: Report,
    *,
    link: Link,
    overwrite: bool,
    workers: Workers,
) -> None:
    """Bring the chosen images from a directory to their place, or, where none is named, keep those that are there."""
    output = part.directory
    if images is None:
        stems = set(map(image_stem, chosen))
        known = {*part.noted, *part.expected}
        part.keep_images(
            [name for name in known if name.startswith(f"{FOLDER}/") and image_stem(name) in stems], "give --images"
        )
        if not overwrite:
            part.note_if_there(MISSING_LIST)
        return
    found, missing = choose_images(chosen, images, output / FOLDER, report)
    for place in {path.parent for path in found}:
        # Else the user's own images would be noted as results, which --overwrite may remove.
        refuse_same_directory(place, output / FOLDER)
    make_output_directory(output / FOLDER)
    paths = {f"{FOLDER}/{path.name}": path for path in found}
    jobs = {name: Placement(output / name, path, None, link, part.replaces(name)) for name, path in paths.items()}
    others = find_other_names(jobs, part.noted)
    if not overwrite:
        keep_earlier(chosen, jobs, others, part)
        jobs = {name: job for name, job in jobs.items() if name not in others}
    refused = part.refuse_changed(jobs, workers)
    jobs = {name: job for name, job in jobs.items() if name not in refused}
    kept = set() if overwrite else jobs.keys() & part.kept
    part.count_images(kept)
    part.expect_images(jobs)
    placements = [job for name, job in jobs.items() if name not in kept]
    there = place_all(placements, report, workers)
    part.note(sorted(there))
    part.remove(each for name in jobs if output / name in there for each in others.get(name, ()))
    part.warn_of_strays(FOLDER, [path.name for path in found])
    advice = "complete the images; looked for " + " ".join(IMAGE_SUFFIXES)
    report_missing(report, missing, str(images), output / MISSING_LIST, advice)
    part.note_if_there(MISSING_LIST)


def keep_earlier(
    chosen: Sequence[str], jobs: Mapping[str, Placement], others: Mapping[str, Sequence[str]], part: Part
) -> None:
    """Keep chosen images of earlier runs that have no source any more, or, as failures, one of another name."""
    gone = set(map(image_stem, chosen)) - set(map(image_stem, jobs))
    part.keep(name for name in part.noted if name.startswith(f"{FOLDER}/") and image_stem(name) in gone)
    for name, earlier in others.items():
        for each in earlier:
            part.refuse(jobs[name], each, "one of another name")
    part.keep(others.keys() & part.noted)  # earlier versions brought both


def find_other_names(names: Iterable[str], earlier: Iterable[str]) -> dict[str, list[str]]:
    """Return which of some images lie there from earlier runs under other names, such as with another suffix."""
    names_of: dict[str, list[str]] = defaultdict(list)
    for name in earlier:
        if name.startswith(f"{FOLDER}/"):
            names_of[image_stem(name)].append(name)
    others = {name: [each for each in names_of.get(image_stem(name), ()) if each != name] for name in names}
    return {name: found for name, found in others.items() if found}


def foretell(chosen: Sequence[str], images: Path | None, output: Path, report: Report) -> None:
    """Say what a run would bring, without writing anything."""
    if images is None:
        report.note("No images were asked for: give --images")
        return
    found, missing = choose_images(chosen, images, output / FOLDER, report)
    places = [Placement(output / FOLDER / path.name, path) for path in found]
    way = Way(places, missing=missing, names={job.path: job.path.name for job in places})
    foretell_way(FOLDER, way, {}, output, report)
