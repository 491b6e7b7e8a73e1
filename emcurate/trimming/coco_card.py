"""What the dataset card of a trimmed COCO set says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from emcurate.markdown import make_table
from emcurate.trimming.coco import Image
from emcurate.trimming.coco_selection import Choice
from emcurate.trimming.dataset_card import make_card, make_count_table, name_size

# Where COCO's own images are. Other sets come in its format too, and have other owners.
COCO_HOST = "images.cocodataset.org"
FIRST_STUFF = 92  # of the categories' numbers

# As COCO's files list them, for those that were copied without the list.
LICENCES_OF_COCO = {
    1: "Attribution-NonCommercial-ShareAlike License (http://creativecommons.org/licenses/by-nc-sa/2.0/)",
    2: "Attribution-NonCommercial License (http://creativecommons.org/licenses/by-nc/2.0/)",
    3: "Attribution-NonCommercial-NoDerivs License (http://creativecommons.org/licenses/by-nc-nd/2.0/)",
    4: "Attribution License (http://creativecommons.org/licenses/by/2.0/)",
    5: "Attribution-ShareAlike License (http://creativecommons.org/licenses/by-sa/2.0/)",
    6: "Attribution-NoDerivs License (http://creativecommons.org/licenses/by-nd/2.0/)",
    7: "No known copyright restrictions (http://flickr.com/commons/usage/)",
    8: "United States Government Work (http://www.usa.gov/copyright.shtml)",
}

_TERMS = "https://cocodataset.org/#termsofuse"


def gather_facts(choice: Choice, settings: Mapping[str, Any], fingerprints: Sequence[str]) -> dict[str, Any]:
    """Return what a card tells of a split, as JSON values, so that it can be noted for a later run's card."""
    content, shown = choice.split.content, choice.count_shown()
    is_coco = bool(choice.images) and all(map(_is_of_coco, choice.images.values()))
    names = content.licences or (LICENCES_OF_COCO if is_coco else {})
    licences = Counter(
        names.get(image.licence, f"licence {image.licence}") if image.licence is not None else "not stated"
        for image in choice.images.values()
    )
    return {
        "files": [[path.name, mark] for path, mark in zip(choice.split.annotations, fingerprints, strict=True)],
        "settings": {**settings, "samples": choice.split.samples},
        "images": len(choice.images),
        "is_coco": is_coco,
        "has_stuff": any(number >= FIRST_STUFF for number in content.categories),
        "licences": dict(sorted(licences.items())),
        "targets": [
            [
                *(row.target, choice.names.get(row.target, "")),
                *(row.positives, row.negatives, *row.distinct, "yes" if row.repeats else "no", shown[row.target]),
            ]
            for row in choice.selections
        ],
    }


def _is_of_coco(image: Image) -> bool:
    try:
        return urlsplit(image.url or "").hostname == COCO_HOST
    except ValueError:
        return False


def make_coco_card(stage: str, splits: Mapping[str, Mapping[str, Any]]) -> bytes:
    """Return the card of some splits, by name, from their facts."""
    is_coco = all(facts["is_coco"] for facts in splits.values())
    has_stuff = any(facts["has_stuff"] for facts in splits.values())
    about: dict[str, object] = {"task_categories": ["image-classification"], "tags": ["trimmed"]}
    about["size_categories"] = [name_size(sum(facts["images"] for facts in splits.values()))]
    title = "Trimmed image set in COCO's format"
    if is_coco:
        title = "COCO-Stuff 2017, trimmed" if has_stuff else "COCO 2017, trimmed"
        about |= {"license": "other", "license_name": "coco-terms-of-use", "license_link": _TERMS}
    else:
        about["license"] = "unknown"
    sections = {
        "Source": _tell_source(splits),
        "How it was drawn": _tell_rule(splits),
        "What is in it": _tell_counts(splits),
        "Licence": _tell_licence(splits, is_coco, has_stuff),
    }
    return make_card(stage, title, about, sections)


def _tell_source(splits: Mapping[str, Mapping[str, Any]]) -> list[str]:
    rows = [[name, file, mark] for name, facts in splits.items() for file, mark in facts["files"]]
    return make_table(["split", "annotation file", "XXH3, 128 bits"], rows)


def _tell_rule(splits: Mapping[str, Mapping[str, Any]]) -> list[str]:
    lines = [
        "For each target category half of the samples show it and half do not, drawn by numpy's RandomState, freshly",
        "seeded for each target, from the images in the order in which they first appear among the annotations; with",
        "replacement only where there are fewer than are to be drawn. The set is the union over all targets.",
        "",
    ]
    for name, facts in splits.items():
        settings = facts["settings"]
        targets = " ".join(str(target) for target in settings["targets"])
        lines.append(f"- {name}: seed {settings['seed']}, {settings['samples']} samples a target, targets {targets}")
    return lines


def _tell_counts(splits: Mapping[str, Mapping[str, Any]]) -> list[str]:
    lines = [
        f"- {name}: {facts['images']:,} images in `{name}2017/`, listed in `labels_{name}.json`"
        for name, facts in splits.items()
    ]
    header = ["id", "target", "images with it", "without", "drawn with it", "drawn without", "repeats", "in the set"]
    for name, facts in splits.items():
        lines += ["", f"Of {name}:", "", *make_table(header, facts["targets"])]
    return lines


def _tell_licence(splits: Mapping[str, Mapping[str, Any]], is_coco: bool, has_stuff: bool) -> list[str]:
    if is_coco:
        owners = "the COCO Consortium, and of COCO-Stuff its authors" if has_stuff else "the COCO Consortium"
        lines = [
            f"- Annotations: Creative Commons Attribution 4.0, © {owners}.",
            f"- Images: the consortium does not own them; Flickr's terms of use apply ({_TERMS}), and each image",
            "  has the licence that its owner chose:",
        ]
    else:
        lines = ["Not known: the annotation files are not of COCO's own images. What they state of the chosen images:"]
    counts: Counter[str] = Counter()
    for facts in splits.values():
        counts.update(facts["licences"])
    return [*lines, "", *make_count_table("licence", counts)]
