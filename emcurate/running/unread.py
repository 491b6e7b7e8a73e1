"""What lies in a corpus and is not read: every file of it is named, however deep it lies, with why and what to do."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from emcurate.errors import describe_os_error
from emcurate.files import is_directory, natural_key
from emcurate.running.claims import is_result_directory
from emcurate.running.report import Report

# What to do with files of formats that are met beside microscopes, by extension.
_TO_TIFF = "save it as TIFF or MRC with the program that it comes from"
_BIOFORMATS = "save it as OME-TIFF, for example with bfconvert of Bio-Formats"
_ARRAY = "save its array as TIFF or NRRD"
_UNPACK = "unpack it"
_BARE = "bare voxels: write an .nhdr header for it, which says their type and number"
_PICTURE = "save it as PNG or TIFF"
_CONVERSIONS: dict[str, str] = {
    ".emi": "nothing is to be done where the .ser files that it describes lie beside it, which are read",
    **dict.fromkeys((".eer", ".tvips", ".tia", ".bcf"), _TO_TIFF),
    **dict.fromkeys((".czi", ".lif", ".nd2", ".oib", ".oif", ".oir", ".vsi", ".sxm", ".ndpi", ".svs"), _BIOFORMATS),
    **dict.fromkeys((".am", ".amiramesh", ".vtk", ".vti", ".mha", ".mhd", ".vol"), "save it as TIFF or NRRD"),
    **dict.fromkeys((".hdr", ".img"), "save header and data as one .nii"),
    **dict.fromkeys((".npy", ".npz", ".mat"), _ARRAY),
    **dict.fromkeys((".raw", ".bin", ".dat"), _BARE),
    **dict.fromkeys((".zip", ".tar", ".tgz", ".7z", ".rar", ".gz", ".bz2", ".xz", ".zst"), _UNPACK),
    **dict.fromkeys((".heic", ".heif", ".avif", ".psd", ".exr", ".svg", ".eps", ".jxl", ".cr2", ".dng"), _PICTURE),
    **dict.fromkeys((".dcm", ".ima"), "save it as TIFF or NIfTI"),
}
_TEXTS = (
    *(".txt", ".md", ".csv", ".tsv", ".json", ".xml", ".yml", ".yaml", ".log", ".ini", ".html", ".pdf", ".doc"),
    *(".docx", ".xls", ".xlsx", ".mdoc", ".rtf", ".bib", ".py", ".ipynb", ".toml", ".db", ".tfw"),
)


@dataclass(frozen=True)
class Unread:
    """What a corpus of one kind does not take, noted in a report.

    Parameters
    ----------
    wanted : str
        What a file would have to be, such as ``an image``.
    is_wanted : callable
        Says of a path whether it is such, by its name.
    elsewhere : mapping of str to tuple of str
        Where files with some extensions belong, an imperative, such as ``give its directory with --volumes``.
    report : Report
    usual : str
        The format that others are best converted to.
    is_one : callable
        Says of a directory whether it is one thing, such as a volume of many files.
    """

    wanted: str
    is_wanted: Callable[[Path], bool]
    elsewhere: Mapping[str, tuple[str, ...]]
    report: Report
    usual: str = "TIFF"
    is_one: Callable[[Path], bool] = lambda path: False

    def note(self, path: Path) -> None:
        """Note a file, or a directory that is one thing, that is nothing wanted by its name."""
        name, suffix = path.name.lower(), path.suffix.lower()
        reason = f"not {self.wanted}" + (" by its extension" if suffix else ": it has no extension")
        elsewhere = (advice for advice, suffixes in self.elsewhere.items() if name.endswith(suffixes))
        advice = next(elsewhere, None) or _CONVERSIONS.get(suffix)
        if advice is None and name.endswith(_TEXTS):
            advice = "nothing is to be done where it is a note"
        elif advice is None:
            advice = f"convert it to {self.usual}" if suffix else "give it the extension of its format"
            advice += ", or leave it"
        self.report.leave_out(path, reason, advice)

    def note_below(
        self, directory: Path, reason: str, advise: Callable[[Path], str], taken: Collection[Path] = ()
    ) -> None:
        """Note every file below a directory but those taken; what is wanted with a reason and advice of its own."""
        for path in walk(directory, self.is_one, self.report):
            if path in taken:
                continue
            if self.is_wanted(path):
                self.report.leave_out(path, reason, advise(path))
            elif is_directory(path) and not self.is_one(path):
                self.report.leave_out(path, "a link to a directory, below others", f"name {path.resolve()} itself")
            else:
                self.note(path)


def walk(directory: Path, is_one: Callable[[Path], bool], report: Report) -> Iterator[Path]:
    """Yield the files below a directory in natural order, hidden things and results of stages left out.

    A directory that is one thing, or that only a link leads to, is yielded as it is; one that must not be read is
    reported.
    """
    try:
        with os.scandir(directory) as found:
            # By what the listing itself says: of many files, asking of each costs minutes on a network's disk.
            entries = {entry.name: entry.is_dir() for entry in found if not entry.name.startswith(".")}
    except OSError as error:
        report.fail(describe_os_error(error, directory))
        return
    for name in sorted(entries, key=natural_key):
        path = directory / name
        if not entries[name] or is_one(path) or path.is_symlink():
            yield path
        elif not is_result_directory(path):
            yield from walk(path, is_one, report)
