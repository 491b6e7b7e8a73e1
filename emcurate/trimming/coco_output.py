"""What the directory of a trimmed COCO set holds: lists of what was chosen, a report, pictures, and the images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from emcurate.fetching.foresight import foretell_way
from emcurate.fetching.gathering import Wanted, find_way, gather, locate_all
from emcurate.fetching.placing import Link
from emcurate.files import make_output_directory, read_regular, refuse_same_directory
from emcurate.outputs import digest_bytes, digest_file
from emcurate.running.jobs import Workers
from emcurate.running.report import Report
from emcurate.running.sources import Source
from emcurate.trimming.coco import Image, select_records
from emcurate.trimming.coco_card import gather_facts, make_coco_card
from emcurate.trimming.coco_selection import REPORT_COLUMNS, Choice, Split, merge_report
from emcurate.trimming.dataset_card import write_card
from emcurate.trimming.part import Part

REPORT_NAME = "trim_report.csv"
METADATA_NAME = "metadata.jsonl"


@dataclass(frozen=True)
class Bringing:
    """How images come to their place; the fields are arguments of `emcurate.fetching.gathering.gather`."""

    download: bool
    most_failures: int
    link: Link
    overwrite: bool
    workers: Workers


class ListNames(NamedTuple):
    """The names of a split's files beside its images."""

    labels: str
    balance: str
    masks: str
    missing: str


def list_names(split: Split) -> ListNames:
    """Return the names of a split's files in the output directory."""
    name = split.name
    return ListNames(
        f"labels_{name}.json", f"balance_{name}.png", f"instances_{name}_trimmed.json", f"missing_{split.folder}.txt"
    )


def open_part(
    stage: str, choice: Choice, output: Path, settings: Mapping[str, Any], report: Report, **flags: bool
) -> Part:
    """Return what the output directory knows of a split."""
    split = choice.split
    source = Source(
        split.annotations[0],
        ", ".join(digest_file(path) for path in split.annotations),  # they were read whole, once more costs little
        dataset=split.name,
        settings={**settings, "samples": split.samples},
    )
    return Part(output, stage, source, list_names(split), report, **flags)


def write_split(
    stage: str, choice: Choice, part: Part, settings: Mapping[str, Any], how: Bringing, report: Report
) -> dict[str, Any]:
    """Write all of a split: its lists, its rows of the report, its images; return what the dataset card tells of it."""
    split = choice.split
    write_lists(choice, part, settings["masks"], report)
    write_report(stage, choice, part.directory, report)
    are_asked_for = split.images is not None or how.download
    if are_asked_for:
        bring_images(choice, part, how, report)
    else:
        advice = f"give --{split.name}-images or --download"
        part.keep_images(choice.image_names(), advice)
        report.note(f"No {split.name} images were asked for: {advice}")
    if settings["layout"] == "imagefolder":
        write_metadata(choice, part)
    if are_asked_for or not how.overwrite:
        part.note_if_there(list_names(split).missing)
    facts = gather_facts(choice, settings, part.fingerprint.split(", "))
    part.finish(facts)
    if are_asked_for:
        part.warn_of_strays(split.folder, [image.file_name for image in choice.images.values()])
    return facts


def write_lists(choice: Choice, part: Part, masks: bool, report: Report) -> None:
    """Write which images of a split were chosen and how they are balanced, unless an earlier run did."""
    split = choice.split
    names = list_names(split)
    report.count(f"{split.name} images chosen", len(choice.images))
    if part.is_done:
        part.count_lists()
    else:
        is_new = part.write(names.labels, choice.labels_file())
        if is_new or part.replaces(names.balance) or not (part.directory / names.balance).exists():
            part.write(names.balance, choice.balance_picture())
        else:
            # Not compared with one that nobody noted: another matplotlib draws the same bars with other bytes.
            part.note([part.directory / names.balance])
        if masks:
            records, oddities = select_records(split.annotations, list(choice.images))
            part.write(names.masks, records)
            for oddity in oddities:
                report.warn(oddity)
    for line in choice.describe():
        report.note(line)
    report.note(f"How the {split.name} images are balanced: {part.directory / names.balance}")


def write_report(stage: str, choice: Choice, output: Path, report: Report) -> None:
    """Bring a split's rows of trim_report.csv up to date; the file is a part of its own, since both splits share it."""
    path = output / REPORT_NAME
    earlier = read_regular(path).decode("utf-8", "replace") if path.exists() else ""
    data = merge_report(earlier, choice.split.name, choice.report_rows()).encode()
    part = Part(output, stage, Source(path, digest_bytes(data), "report"), {path.name}, report, renew=True)
    part.write(path.name, data, replace=earlier.startswith(",".join(REPORT_COLUMNS)))
    part.finish()


def write_coco_card(stage: str, part: Part, facts: Mapping[str, Mapping[str, Any]], report: Report) -> None:
    """Write the dataset card from the facts of this run's splits, and of the other as they were noted."""
    known = {name: facts.get(name) or part.details_of(name) for name in ("train", "val")}
    known = {name: about for name, about in known.items() if about}
    if known:
        write_card(stage, part.directory, make_coco_card(stage, known), report)


def wanted_images(images: Iterable[Image]) -> dict[str, Wanted]:
    """Return what is to be brought, by file name."""
    return {image.file_name: Wanted(image.url, image.size) for image in images}


def foretell(choice: Choice, output: Path, report: Report, *, download: bool) -> None:
    """Say what a run would bring of a split, without writing anything."""
    split = choice.split
    for line in choice.describe():
        report.note(line)
    report.count(f"{split.name} images chosen", len(choice.images))
    if split.images is None and not download:
        report.note(f"{split.name}: no images were asked for; give --{split.name}-images or --download")
        return
    wanted = wanted_images(choice.images.values())
    way = find_way(wanted, output / split.folder, split.images, report, download=download)
    foretell_way(split.name, way, wanted, output, report)


def bring_images(choice: Choice, part: Part, how: Bringing, report: Report) -> None:
    """Bring those images of a split to their place that are not there yet."""
    images = choice.image_names()
    folder, source = part.directory / choice.split.folder, choice.split.images
    for place in (source, source / folder.name) if source is not None else ():
        # Else the user's own images would be noted as results, which --overwrite may remove.
        if place.is_dir():
            refuse_same_directory(place, folder)
    make_output_directory(folder)
    if source is not None:
        names = {image.file_name: name for name, image in images.items()}
        found = locate_all(source, names, folder)
        refused = part.refuse_changed({names[file_name]: job for file_name, job in found.items()}, how.workers)
        images = {name: image for name, image in images.items() if name not in refused}
    kept = set() if how.overwrite else images.keys() & part.kept
    wanted = wanted_images(image for name, image in images.items() if name not in kept)
    part.count_images(kept)
    if wanted:
        part.expect_images(images)
        there = gather(
            wanted,
            folder,
            source,
            report,
            download=how.download,
            link=how.link,
            overwrite=how.overwrite,
            damaged={images[name].file_name for name in part.damaged(images)},
            begun={images[name].file_name for name in part.expected if name in images},
            intact={images[name].file_name for name in part.kept if name in images},
            most_failures=how.most_failures,
            workers=how.workers,
        )
        part.note(folder / name for name in sorted(there))


def write_metadata(choice: Choice, part: Part) -> None:
    """Write metadata.jsonl about the images of a split that are there, if any."""
    images = choice.image_names()
    present = {images[name].file_name for name in part.names() if name in images}
    data, name = choice.metadata(present), f"{choice.split.folder}/{METADATA_NAME}"
    if present:
        part.write(name, data, replace=grows(part.directory / name, data))


def grows(path: Path, data: bytes) -> bool:
    """Return whether a file holds only lines of `data`: some images may have been missing when it was written."""
    return path.is_file() and set(read_regular(path).splitlines()) <= set(data.splitlines())


def warn_of_other_split(parts: Sequence[Part], settings: Mapping[str, Any], report: Report) -> None:
    """Warn where the split that is not trimmed now was trimmed with other settings."""
    for name in {"train", "val"} - {part.name for part in parts}:
        theirs = parts[0].settings_of(name)
        differing = [key for key, value in settings.items() if key in theirs and theirs[key] != value]
        if differing:
            report.warn(
                f"{parts[0].directory}: {name} was trimmed with other {', '.join(differing)}; to have both alike, give "
                f"--{name}-annotations and --overwrite too"
            )
