"""What one input became in the directory of a trimmed set: what is there of it already, and what is written now."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from emcurate.errors import InputError
from emcurate.fetching.placing import Placement, digest_source, find_states
from emcurate.fetching.safe_names import check_length
from emcurate.files import list_entries
from emcurate.outputs import Output, holds, note_output
from emcurate.running.comparison import remove_result
from emcurate.running.jobs import Workers
from emcurate.running.ledger import Ledger
from emcurate.running.report import Report
from emcurate.running.sources import Source
from emcurate.writing import write_once

# What the stages make that trim a set or fetch a trimmed one: one directory holds one such set.
TRIMMED, DOWNLOADED = PRODUCTS = ("trimmed sets", "downloaded sets")

# Under which of a part's details the states of its images' sources are noted.
SOURCES = "sources"


class Part:
    """A part of a trimmed set, such as one split, as the ledger of its output directory knows it.

    Lists are written whole or not at all. Images may come later, or only some of them: the ledger holds those that are
    there, and the next run that is asked for images goes on with the others.

    Parameters
    ----------
    directory : Path
        The output directory; it must exist.
    stage : str
        The stage's name.
    source : Source
        The input. Its `dataset` is the part's name; other parts of the directory are left alone.
    lists : collection of str
        The names of the part's files, images apart.
    report : Report
        Receives the refusal of a part made of other input or with other settings, and counts files.
    overwrite, prune, renew : bool
        See `Ledger.plan`.

    Attributes
    ----------
    is_refused, is_done : bool
        Whether nothing may be written; whether all that is noted is there as it was written.
    fingerprint : str
        What changes when the input does.
    noted, kept : dict of str to Output
        What earlier runs wrote, by name; and what of that is still as they wrote it.
    expected : set of str
        The names of images that a run which was broken off was about to bring: those that are there are its own.
    """

    def __init__(
        self,
        directory: Path,
        stage: str,
        source: Source,
        lists: Collection[str],
        report: Report,
        *,
        overwrite: bool = False,
        prune: bool = False,
        renew: bool = False,
    ) -> None:
        self.directory, self.name, self.fingerprint = directory, source.dataset, source.fingerprint
        self._report, self._overwrite = report, overwrite
        self._ledger = Ledger(
            directory,
            stage,
            {},
            product=TRIMMED,
            owner_of=lambda file: self.name if file in lists else None,
        )
        before = self._ledger.outputs_of(self.name) if self.name in self._ledger.entries else []
        self.noted = {output.name: output for output in before if output.digest}
        self.expected = {output.name for output in before if not output.digest}
        self._states = dict(self._ledger.details_of(self.name).get(SOURCES, {}))
        # The part owns its name whatever files it is made from. Its root is its own too: else the other part's input
        # would be taken for gone where only this one's is given.
        source = dataclasses.replace(source, owner=Path(self.name))
        root = directory / self.name
        plan = self._ledger.plan({self.name: source}, report, root=root, overwrite=overwrite, prune=prune, renew=renew)
        self.is_done = self.name in plan.done
        self.is_refused = not self.is_done and self.name not in plan.todo
        self.kept = {name: output for name, output in self.noted.items() if self.is_done or holds(directory, output)}
        self._outputs = dict(self.noted) if self.is_done else {}

    def replaces(self, name: str) -> bool:
        """Return whether a file that is there may be replaced: it is this stage's own, or --overwrite was given."""
        # Lists can be told from the user's own files by their names, images cannot.
        return (
            self._overwrite
            or name in self.noted
            or name in self.expected
            or ("/" not in name and self._ledger.replaces(self.name))
        )

    def settings_of(self, name: str) -> Mapping[str, Any]:
        """Return what another part of the directory was made with; nothing if there is none."""
        return self._ledger.entries[name].settings if name in self._ledger.entries else {}

    def damaged(self, names: Iterable[str]) -> list[str]:
        """Return which of some files an earlier run wrote and are missing or altered."""
        return [name for name in names if name in self.noted and name not in self.kept]

    def write(self, name: str, data: bytes, *, replace: bool = False) -> bool:
        """Write a file unless it is there with these bytes, count it and note it; return whether it was written."""
        path = self.directory / name
        written = write_once(path, data, overwrite=replace or self.replaces(name))
        self._report.count_file(written)
        self._outputs[name] = note_output(path, self.directory, data)
        return written

    def count_lists(self) -> None:
        """Count the lists of a part that is done."""
        self._report.count("files already there", sum("/" not in name for name in self.noted))

    def note(self, paths: Iterable[Path]) -> None:
        """Note files that are in their place."""
        for path in paths:
            output = note_output(path, self.directory)
            self._outputs[output.name] = output

    def note_if_there(self, name: str) -> None:
        """Note a list that comes and goes, such as that of missing images."""
        if (self.directory / name).is_file():
            self.note([self.directory / name])
        else:
            self._outputs.pop(name, None)

    def refuse_changed(self, jobs: Mapping[str, Placement], workers: Workers) -> set[str]:
        """Return which images of earlier runs have another source by now; each is a failure, and stays noted.

        `jobs` tells, by name, what the images come from now. Only sources whose state is not that which was noted are
        read: one that was merely touched is the same. With --overwrite any may have changed.
        """
        states = find_states(jobs)
        earlier = [] if self._overwrite else [name for name in jobs if name in self.noted]
        unsure = [name for name in earlier if states.get(name) != self._states.get(name)]
        names = {jobs[name].path: name for name in unsure}
        digests = {
            names[job.path]: digest
            for job, digest in workers.run(digest_source, [jobs[name] for name in unsure], self._report, unit="image")
        }
        changed = {name for name in unsure if digests.get(name) != self.noted[name].digest}
        for name in unsure:
            if name in changed and name in digests:  # that one cannot be read was reported
                self.refuse(jobs[name], name)
        self.keep(changed)
        self._states |= {name: state for name, state in states.items() if name not in changed}
        return changed

    def refuse(self, job: Placement, name: str, found: str = "another") -> None:
        """Report as a failure that something other than an image of an earlier run would come, which stays noted."""
        wanted = "the image" if job.entry is None else f"the {job.entry}"
        advice = "put that back, use another output directory, or --overwrite to replace what was placed"
        expected = f"{wanted} that was placed as {self.directory / name}"
        self._report.fail(InputError(job.source, expected, found, advice))
        self.keep([name])

    def keep(self, names: Iterable[str]) -> None:
        """Go on noting images of earlier runs as they were noted, whatever they are now."""
        self._outputs |= {name: self.noted[name] for name in names}

    def remove(self, names: Iterable[str]) -> None:
        """Remove images of earlier runs, in whose place others have come."""
        for name in names:
            self._outputs.pop(name, None)
            remove_result(self.directory, name)

    def expect_images(self, names: Iterable[str]) -> None:
        """Note which images are about to come, so that one a killed run brought is known to be this part's own.

        What lies there already and nobody noted is its owner's.
        """
        new = {name for name in names if name not in self.noted and _can_come(self.directory / name)}
        if new or self.expected:
            coming = {name: Output(name, 0, 0, "") for name in sorted(new | self.expected)}
            self._ledger.expect(self.name, {**coming, **self.noted, **self._outputs}.values())
            self.is_done = False

    def count_images(self, names: Collection[str]) -> None:
        """Count and note images that earlier runs brought and that are as they were then."""
        self._report.count("images placed", 0)
        if names:
            self._report.count("images already there", len(names))
        self._outputs |= {name: self.kept[name] for name in names}

    def keep_images(self, names: Collection[str], advice: str) -> None:
        """Go on noting images of earlier runs that this run was not asked to bring; a damaged one is a failure."""
        self.note(
            self.directory / name for name in names if name in self.expected and (self.directory / name).is_file()
        )
        self.keep(name for name in names if name in self.noted)
        lost = self.damaged(names)
        if lost:
            found = f"{len(lost):,} missing or altered, such as {lost[0]}"
            self._report.fail(InputError(self.directory, "the images that were brought there", found, advice))

    def warn_of_strays(self, folder: str, expected: Collection[str] = ()) -> None:
        """Warn of what lies in a folder of images and is neither noted nor among the names expected there."""
        place = self.directory / folder
        noted = {name.removeprefix(f"{folder}/") for name in self._outputs if name.startswith(f"{folder}/")}
        ours = {name.split("/")[0] for name in [*noted, *expected]}
        strays = [path.name for path in list_entries(place) if path.name not in ours] if place.is_dir() else []
        if strays:
            self._report.warn(
                f"{place}: {len(strays):,} files are not of this selection, such as {strays[0]}; they were left there"
            )

    def names(self) -> set[str]:
        """Return the names of the files noted so far."""
        return set(self._outputs)

    def details_of(self, name: str) -> Mapping[str, Any]:
        """Return what was noted about another part of the directory when it was finished; nothing if there is none."""
        return self._ledger.details_of(name)

    def finish(self, details: Mapping[str, Any] | None = None) -> None:
        """Note what the part now is, and remove what earlier runs made of it and this one did not.

        `details` are noted with it; JSON values.
        """
        details = dict(details or {})
        states = {name: self._states[name] for name in sorted(self._outputs) if name in self._states}
        if states:
            details[SOURCES] = states
        if not self.is_done or self._outputs != self.noted or details != self._ledger.details_of(self.name):
            self._ledger.finish(self.name, [self._outputs[name] for name in sorted(self._outputs)], details)


def _can_come(path: Path) -> bool:
    """Return whether nothing is there yet and a file can be, by its name."""
    try:
        check_length(path)
        os.lstat(path)
    except FileNotFoundError:
        return True
    except (InputError, OSError):
        return False
    return False
