"""What there is to cut in a run of crop_patches.py, and how it is divided among jobs."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from emcurate import naming
from emcurate.errors import InputError
from emcurate.outputs import Output, digest_bytes
from emcurate.patches.cutting import FILES, NOTHING, TAR, CutJob, Done
from emcurate.patches.shards import MEMBER_SUFFIX, dataset_of_shard, find_shards, list_patches, shard_name
from emcurate.patches.table_updates import MEASURED, TableUpdates, table_key
from emcurate.patches.tables import TABLE_SUFFIX
from emcurate.patches.wanted import Wanted
from emcurate.running.comparison import some
from emcurate.running.jobs import Workers
from emcurate.running.ledger import Ledger
from emcurate.running.ledger_lines import DONE, Line
from emcurate.running.report import Report
from emcurate.running.sources import Plan, Source

# Patches whose files threads write sooner than processes start; of more, these wait for each other most of the time.
THREADED_PATCHES = 12_000

# Ends the ledger's key of a dataset's shards.
SHARDS_KEY = "/shards"

# What is noted of results: of sections that were only hashed, beside whatever files there were; of sections whose
# patches are in shards; of some patches of all, followed by which; and of a table that tells where in shards its
# patches are. Nothing is noted of all patches as files, nor of a table of them.
HASHES, IN_SHARDS, ONLY, SHARDS = "hashes ", "in shards ", "only ", "shards of "

# What a report calls patches that an earlier list named and this one does not.
NO_LONGER_LISTED = "patches removed that the list no longer names"


def shards_key(dataset: str) -> str:
    """Return the ledger's key of a dataset's shards."""
    return f"{dataset}{SHARDS_KEY}"


def key_of(name: str) -> str | None:
    """Return the ledger's key of a result by its file name, None if it is none."""
    if name.endswith(TABLE_SUFFIX):
        return table_key(name.removesuffix(TABLE_SUFFIX))
    if (dataset := dataset_of_shard(name)) is not None:
        return shards_key(dataset)
    stem, _, extension = name.rpartition(".")
    return stem.rsplit("_", 2)[0] if extension in ("tiff", "npy") and naming.MARK in stem else None


class CropPlan:
    """What a run has to cut.

    The ledger knows three kinds of inputs: each section, of which patches' files come, or nothing where these go
    elsewhere; each dataset's table; and each dataset's shards.

    Parameters
    ----------
    wanted : Wanted
    ledger : Ledger
    shard_size : int
        Patches of a shard at most, or those of one section.
    """

    def __init__(self, wanted: Wanted, ledger: Ledger, shard_size: int) -> None:
        self.material, self.how, self.ledger = wanted.material, wanted.how, ledger
        self.wanted, self.datasets, self.shard_size = wanted, wanted.datasets, shard_size
        self.tables = TableUpdates(self.how.patchdir, ledger, self.how.settings)
        self._complete: set[str] = set()  # datasets of which some patches are wanted, and whose tables get all
        self._unlisted: dict[str, int] = {}  # by dataset: patches in shards that the list no longer names
        self._stays: set[str] = set()
        self._shards: dict[str, dict[str, Output | None]] = {}

    def settle(self, report: Report, *, overwrite: bool, prune: bool) -> None:
        """Compare what there is with what is wanted; see `Ledger.plan`."""
        sources: dict[str, Source] = {}
        for dataset, stems in self.datasets.items():
            sources.update(self._sources(dataset, stems, overwrite))
        self._refuse_other_store(overwrite)
        self._unlisted = {dataset: self._count_unlisted(dataset) for dataset in self.datasets}
        as_before = {stem for stem in self.material.sections if self.ledger.is_as_noted(stem, sources[stem])}
        self._stays = as_before if self.how.store == NOTHING else set()
        plan = self.ledger.plan(
            sources, report, root=self.material.root, named=self.material.named, overwrite=overwrite, prune=prune
        )
        if self.how.store == NOTHING:
            self._warn_of_strangers(report)
        if self.how.store == TAR:
            # Shards are of a whole dataset: where anything of one is refused, nothing of it may be written.
            refused = {sources[key].dataset for key in sources.keys() - plan.todo.keys() - {*plan.done}}
            plan = Plan({key: why for key, why in plan.todo.items() if sources[key].dataset not in refused}, plan.done)
        unfinished = {sources[key].dataset for key in plan.todo}
        states = {stem: self._state_of_rows(stem) for name in unfinished for stem in self.datasets[name]}
        self.tables.plan(plan, self.material.sections, states, self._has_rows, self._complete)
        self._todo = {*plan.todo, *self.tables.lost}
        # Of these nothing is wanted: what an earlier list named goes.
        nothing = [stem for stem in self.material.sections if stem in self._todo and not self.wanted.has_any(stem)]
        self._count_removed({stem: [] for stem in nothing}, report)
        self.ledger.finish_all({stem: [] for stem in nothing})
        self._todo -= set(nothing)
        for dataset in self.datasets:
            if shards_key(dataset) in self._todo and self.how.store != TAR:
                self.ledger.finish(shards_key(dataset), [])
                self._count_gone(dataset, report)

    def note_what_holds_all(self, report: Report) -> None:
        """Note that datasets have more patches than a list names, which it takes nothing from."""
        if self.wanted.selection is None or self.how.store == NOTHING:
            return
        in_files = {
            dataset
            for dataset, stems in self.datasets.items()
            if (fitting := list(filter(self.wanted.fits, stems))) and all(map(self._has_all, fitting))
        }
        whole = in_files | self.wanted.whole
        if whole:
            report.note(
                f"{self.how.patchdir} has all patches of {some(sorted(whole))}, not only those of the list, and keeps "
                "them; --overwrite leaves only those"
            )

    def _has_all(self, stem: str) -> bool:
        """Return whether all patches of a section are files here."""
        line = self.ledger.entries.get(stem)
        return line is not None and line.state == DONE and line.made_anything and not line.wanted

    def _warn_of_strangers(self, report: Report) -> None:
        """Warn of files of patches that nobody noted, which hashing leaves as they are."""
        entries = (self.ledger.entries[stem] for stem in self.material.sections if stem in self.ledger.entries)
        strangers = [name for line in entries for name in line.strangers if (self.how.patchdir / name).exists()]
        if strangers:
            report.warn(
                f"{self.how.patchdir}: {len(strangers):,} files, such as {strangers[0]}, of which nobody knows how "
                "they were made; they are left, and --only takes them for its own where it would write the same"
            )

    def _has_rows(self, stem: str) -> bool:
        """Return whether a dataset's table has any row of a section."""
        is_complete = self.material.sections[stem].dataset in self._complete
        return self.wanted.has_any(stem) or (is_complete and self.wanted.fits(stem))

    def _state_of_rows(self, stem: str) -> str:
        """Return what changes when a section's rows do."""
        of_section, dataset = self.ledger.state_of(stem), self.material.sections[stem].dataset
        chosen = self.wanted.of(dataset)
        if chosen is None or dataset in self._complete:
            return of_section
        return f"{of_section} {chosen.digest(stem)}"

    def _sources(self, dataset: str, stems: Sequence[str], overwrite: bool) -> Iterator[tuple[str, Source]]:
        state = digest_bytes(
            "\n".join(f"{s} {self.material.state(s)}" for s in stems).encode("utf-8", "surrogateescape")
        )
        first = self.material.source(stems[0])
        of_all = replace(first, fingerprint=state, is_renewed=self.material.is_renewed, is_part=False)
        noted = self.ledger.entries.get(table_key(dataset))
        # A table that has a row for every patch, or was to have, keeps them whichever patches are wanted as files.
        complete = noted is not None and not noted.wanted.startswith(ONLY)
        complete = complete and self.ledger.is_as_noted(table_key(dataset), of_all)
        if complete and noted is not None and "limits" in noted.details:
            self.material.known_limits[dataset] = noted.details["limits"]
        if self.wanted.selection is not None and self._holds_all_in_shards(dataset, of_all) and not overwrite:
            self.wanted.whole.add(dataset)
        chosen = self.wanted.of(dataset)
        which = "" if chosen is None else ONLY + self.wanted.digest(stems)
        if complete and which:
            self._complete.add(dataset)
        rows = "" if complete else which
        for stem in stems:
            source = self.material.source(stem)
            patches = "" if chosen is None else ONLY + chosen.digest(stem)
            if self.how.store == FILES:
                yield stem, replace(source, wanted=patches, enough=() if overwrite else ("",))
            elif self.how.store == NOTHING:
                yield stem, replace(source, wanted=HASHES, enough=("*",) if complete else ("",))
            else:
                yield stem, replace(source, wanted=IN_SHARDS if complete else IN_SHARDS + patches)
        if self.how.store != TAR:
            # A table made only to hash may say as well where in shards patches are, but not once these go.
            enough = ("",) if self.how.store == FILES else ("", f"{SHARDS}*")
            yield table_key(dataset), replace(of_all, wanted=rows, enough=enough)
            shards = self.ledger.entries.get(shards_key(dataset))
            # Who only hashes leaves shards as they are, unless they are of something else and to be replaced.
            if shards is not None and (self.how.store == FILES or (overwrite and not self._are_of(shards, of_all))):
                yield shards_key(dataset), replace(of_all, wanted="nothing", is_renewed=True)
            return
        yield table_key(dataset), replace(of_all, wanted=f"{rows}{SHARDS}{self.shard_size} {which}")
        settings = {**first.settings, "shard_size": self.shard_size}
        # Shards are made whole: a changed image is not put into one among others without being asked.
        whole = replace(of_all, settings=settings, wanted=which, is_part=self.material.is_renewed, is_renewed=False)
        yield shards_key(dataset), whole

    def _holds_all_in_shards(self, dataset: str, of_all: Source) -> bool:
        """Return whether a dataset's shards are to hold all patches: then fewer are no reason to make them again."""
        shards = self.ledger.entries.get(shards_key(dataset))
        in_shards = self.how.store == TAR and shards is not None and shards.state == DONE and shards.made_anything
        return in_shards and shards is not None and not shards.wanted and self._are_of(shards, of_all)

    def _count_unlisted(self, dataset: str) -> int:
        """Return how many patches lie in a dataset's shards that are no longer wanted."""
        chosen, stems = self.wanted.of(dataset), self.datasets[dataset]
        shards = self.ledger.entries.get(shards_key(dataset))
        if self.how.store == NOTHING or chosen is None or shards is None:
            return 0
        if shards.wanted == ONLY + self.wanted.digest(stems):
            return 0
        told = self.tables.read(dataset)
        stored = {stem: cut.stored_corners() for stem, cut in told.items()}
        of_table = {cut.shard for cut in told.values()}
        # A run that was broken off left shards that no table tells of.
        for path in find_shards(self.how.patchdir, dataset):
            if path.name not in of_table:
                for stem, corner in list_patches(path):
                    stored.setdefault(stem, set()).add(corner)
        return sum(len(there - set(map(tuple, chosen.corners(stem).tolist()))) for stem, there in stored.items())

    def _count_gone(self, dataset: str, report: Report) -> None:
        """Count the patches that have gone from a dataset's shards."""
        if self._unlisted[dataset]:
            report.count(NO_LONGER_LISTED, self._unlisted[dataset])

    def _count_removed(self, made: Mapping[str, Sequence[Output]], report: Report) -> None:
        """Count the patches of sections that an earlier run wrote as files, and that are about to go."""
        if self.wanted.selection is None or self.how.store == NOTHING:
            return
        for stem, outputs in made.items():
            chosen = self.wanted.chosen(stem)
            if chosen is None:
                continue
            # Not those that go from files into shards.
            named = {f"{stem}_{y}_{x}{MEMBER_SUFFIX}" for y, x in chosen.tolist()}
            removed = {name for name in self.ledger.removed_by(stem, outputs) if name.endswith(MEMBER_SUFFIX)}
            if removed - named:
                report.count(NO_LONGER_LISTED, len(removed - named))

    def _are_of(self, shards: Line, of_all: Source) -> bool:
        return self.ledger.is_as_noted(shards.input, replace(of_all, settings=shards.settings))

    def _refuse_other_store(self, overwrite: bool) -> None:
        """Raise `InputError` if patches of a dataset are stored here in another way, and are not to be replaced."""
        if overwrite or self.how.store == NOTHING:
            return
        for dataset, stems in self.datasets.items():
            in_shards = bool(self.ledger.outputs_of(shards_key(dataset)))
            in_files = any(self.ledger.outputs_of(stem) for stem in stems)
            if in_files if self.how.store == TAR else in_shards:
                found = "its patches in shards" if in_shards else "its patches in files of their own"
                advice = "use another output directory, the same --store, or --overwrite to store them anew"
                raise InputError(self.how.patchdir, f"patches of {dataset} stored as {self.how.store}", found, advice)

    def unfinished(self) -> dict[str, list[str]]:
        """Return the datasets of which anything is to be cut, or the table to be written, with the sections to cut."""
        return {
            dataset: [stem for stem in stems if self._is_to_be_cut(stem)]
            for dataset, stems in self.datasets.items()
            if self.tables.is_wanted(dataset)
            or (shards_key(dataset) in self._todo and self.how.store == TAR)
            or not self._todo.isdisjoint(stems)
        }

    def _is_to_be_cut(self, stem: str) -> bool:
        in_shards = self.how.store == TAR and self.wanted.has_any(stem)
        return in_shards or stem in self.tables.missing or (self.how.store != TAR and stem in self._todo)

    def suits_threads(self, datasets: Collection[str]) -> bool:
        """Return whether datasets that are ready are sooner cut by threads: as their material has it, but for files."""
        suits = self.material.suits_threads(datasets)
        if not suits or self.how.store != FILES:
            return suits
        stems = [stem for dataset in datasets for stem in self.datasets[dataset] if stem in self._todo]
        return sum(map(self.wanted.count, stems)) <= THREADED_PATCHES

    def jobs(self, dataset: str, workers: Workers) -> Iterator[CutJob]:
        """Yield the jobs of a dataset that is ready."""
        if self.how.store == TAR:
            in_shards: set[str] = set()
            for job in self._shard_jobs(dataset):
                in_shards |= job.chosen.keys()
                yield job
            # The rest is only hashed, where that was lost.
            missing = self.tables.missing - in_shards - self.tables.parts.held(dataset)
            stems = [stem for stem in self.datasets[dataset] if stem in missing]
            for group in self.material.divide(stems, workers):
                yield self._job(dataset, group)
            return
        stems = [stem for stem in self.datasets[dataset] if self._is_to_be_cut(stem)]
        for group in self.material.divide(stems, workers):
            yield self._job(dataset, group)

    def _job(self, dataset: str, stems: Sequence[str], shard: str = "", state: str = "") -> CutJob:
        table: Path | None = None
        states: dict[str, str] | None = None
        if self.tables.is_wanted(dataset):
            # Where patches are in shards, only parts tell which.
            table = self.tables.whole(dataset, stems) if self.how.store != TAR else None
            if table is None:
                states = {stem: self._state_of_rows(stem) for stem in stems if stem in self.tables.missing}
                table = self.tables.parts.reserve(dataset, stems, shard, states)
        return CutJob(
            self.material.source(stems[0]).path,
            dataset,
            self.material.pieces(stems),
            {stem: self.wanted.chosen(stem) for stem in stems},
            frozenset(stem for stem in stems if stem in self.tables.missing and dataset in self._complete),
            self.how,
            frozenset(stem for stem in stems if self.ledger.replaces(shards_key(dataset) if shard else stem)),
            {stem: self.material.origin(stem) for stem in stems} if table and states is None else {},
            table,
            states,
            self.how.patchdir / shard if shard else None,
            state,
        )

    def _shard_jobs(self, dataset: str) -> Iterator[CutJob]:
        written = self.tables.parts.shards(dataset)
        self._shards[dataset] = {}
        stems = [stem for stem in self.datasets[dataset] if self.wanted.has_any(stem)]
        for number, group in enumerate(self._divide_into_shards(stems)):
            name = shard_name(dataset, number)
            said = [
                f"{stem} {self.ledger.state_of(stem)} {self.wanted.digest([stem]) if self.wanted.of(dataset) else ''}"
                for stem in group
            ]
            state = digest_bytes("\n".join([name, *said]).encode("utf-8", "surrogateescape"))
            self._shards[dataset][state] = written.get(state)
            if state in written:
                self.ledger.finish_all({stem: [] for stem in group if stem in self._todo})
            else:
                yield self._job(dataset, group, name, state)

    def _divide_into_shards(self, stems: Sequence[str]) -> Iterator[list[str]]:
        """Divide sections among shards: as many whole ones as a shard takes, and one at least."""
        shard: list[str] = []
        held = 0
        for stem in stems:
            count = self.wanted.count(stem)
            if shard and held + count > self.shard_size:
                yield shard
                shard, held = [], 0
            shard.append(stem)
            held += count
        if shard:
            yield shard

    def take(self, job: CutJob, done: Done, report: Report) -> None:
        """Note what came of a job."""
        report.fail_all(done.problems)
        made = {
            # What an earlier run wrote of a section that is only hashed now stays.
            stem: self.ledger.outputs_of(stem) if stem in self._stays else outputs
            for stem, outputs in done.sections.items()
            if stem in self._todo
        }
        self._count_removed(made, report)
        # Rows of a table are not in anybody's way.
        self.ledger.finish_all(made, beside_strangers=self.how.store == NOTHING)
        report.count("sections cut", len(done.sections))
        report.count("shards written" if self.how.store == TAR else "files written", done.new)
        if done.shard is not None and not done.problems:
            self._shards[job.dataset][job.shard_state] = done.shard
        if job.table is not None and job.states is None and not done.problems and done.table is not None:
            details = {**self._details(job.dataset), "patches": done.patches, MEASURED: True}
            self.tables.finish(job.dataset, [done.table], details)

    def close(self, dataset: str, report: Report) -> None:
        """Write a dataset's table, unless a job has, once all jobs on it have ended."""
        shards = self._shards.pop(dataset, {})
        finished = [output for output in shards.values() if output is not None]
        if self.how.store == TAR and shards_key(dataset) in self._todo and len(finished) == len(shards):
            self.ledger.finish(shards_key(dataset), finished)
            self._count_gone(dataset, report)
        if self.tables.is_wanted(dataset):
            states = [state for state, output in shards.items() if output is not None]
            self.tables.write(dataset, self.material.origin, self._details(dataset), states)

    def _details(self, dataset: str) -> dict[str, Any]:
        """Return what the ledger keeps of a dataset's table, but for its rows: with how many patches were left out."""
        counts = {"sections": len(self.datasets[dataset]), "small": self.wanted.count_small(dataset)}
        return {**self.material.details(dataset), **counts}

    def count_small(self) -> int:
        """Return how many patches of the datasets here were left out for their size."""
        return sum(self.ledger.count_of(table_key(dataset), "small") for dataset in self.datasets)

    def count_unmeasured(self) -> int:
        """Return how many tables of the datasets here have not the measures of all patches."""
        tables = map(table_key, self.datasets)
        return sum(bool(self.ledger.outputs_of(t)) and not self.ledger.details_of(t).get(MEASURED) for t in tables)

    def count_patches(self) -> int:
        """Return how many of the patches wanted there are now: those of the sections that are done."""
        return sum(map(self._count_patches, self.datasets))

    def _count_patches(self, dataset: str) -> int:
        if self.wanted.selection is None and "patches" in self.ledger.details_of(table_key(dataset)):
            return self.ledger.count_of(table_key(dataset), "patches")
        done = (stem for stem in self.datasets[dataset] if self._is_done(stem))
        if self.wanted.selection is not None:
            return sum(len(self.wanted.selection.corners(stem)) for stem in done)
        return sum(map(self.wanted.count, done))

    def _is_done(self, key: str) -> bool:
        line = self.ledger.entries.get(key)
        return line is not None and line.state == DONE
