"""Sections that volumes are cut into, for patches to be cut from without sections being written."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from emcurate import naming
from emcurate.addresses import Place
from emcurate.errors import InputError
from emcurate.images.origins import Origin
from emcurate.images.pixels import Limits
from emcurate.images.resampling import Factors, Scale, resampled_shape
from emcurate.running.claims import describe_raw
from emcurate.running.jobs import Workers
from emcurate.running.report import Report
from emcurate.running.sources import Source
from emcurate.running.spelled_paths import path_as_text
from emcurate.volumes.corpus import Corpus, find_volumes, fingerprint_sources
from emcurate.volumes.cut_settings import HowToCut
from emcurate.volumes.scratch import make_batches
from emcurate.volumes.sections import (
    choose_planes,
    find_plane_factors,
    find_planes,
    leave_out_thin,
    section_indices,
    section_shape,
    sections_at_once,
)
from emcurate.volumes.slabs import NotesBeside, Slab, describe_volume, ready_to_cut, suits_threads
from emcurate.volumes.sources import VolumeSource
from emcurate.volumes.volume import Volume, warn_of_odd_voxel_size, warn_of_unknown_voxel_size
from emcurate.volumes.voxel_sizes import ask_about, ask_about_given, spell_size


@dataclass(frozen=True)
class OpenJob:
    """One volume to open."""

    source: VolumeSource
    how: HowToCut
    scale: Scale = field(default_factory=Scale)

    @property
    def path(self) -> Place:
        return self.source.path


def open_volume_to_cut(job: OpenJob) -> Volume:
    """Open a volume; warn if its voxel size is unknown and that matters, and refuse it if it cannot be resampled."""
    volume = job.source.open()
    find_plane_factors(volume, find_planes(volume, job.how.axes, job.how.anisotropy), job.scale)
    if any(plane != 0 for plane in job.how.axes):
        warn_of_unknown_voxel_size(volume)
    if job.source.voxel_size_nm is None:
        warn_of_odd_voxel_size(volume)
    return volume


def find_volumes_to_cut(
    voldir: Place, savedir: Path, report: Report, how: HowToCut, scale: Scale = Scale(), prefer: str | None = None
) -> Corpus:
    """Return the volumes in a directory or a list, with all that was said of each; results may lie in `savedir`.

    As `find_volumes`. Of volumes of several levels whose sections are brought to a scale, the nearest finer one is
    read, unless a voxel size is given: that is the size of one level, and says nothing of the others.

    Raises
    ------
    InputError
        If there are none.
    """
    corpus = find_volumes(voldir, report, exclude=[savedir], view=how.view, prefer=prefer)
    if not corpus.sources and not report.failures and isinstance(voldir, Path):
        expected = "volumes (tif, mrc, map, rec, nrrd, nii, h5, zarr, ... or sub-directories of slices)"
        raise InputError(voldir, expected, describe_raw(voldir), "name the directory that holds the volumes")
    ask_about_given(how, [source.name for source in corpus.sources], report)
    for source in corpus.sources:
        if source.voxel_size_nm is not None and (question := ask_about(source.voxel_size_nm)):
            report.warn(f"{source.name} in {voldir}, {spell_size(source.voxel_size_nm)}: {question}")
    return replace(corpus, sources=[_complete(source, how, scale) for source in corpus.sources])


def _complete(source: VolumeSource, how: HowToCut, scale: Scale) -> VolumeSource:
    size, view = source.voxel_size_nm or how.of(source.name).voxel_size, source.view
    if size is None and scale.pixel_size_nm is not None:
        view = replace(view, pixel_size_nm=scale.pixel_size_nm)
    return replace(source, voxel_size_nm=size, view=view)


class DirectoryOfVolumes:
    """The sections that the volumes in a directory, or of a list, are cut into.

    Parameters
    ----------
    voldir : Path or Address
    how : HowToCut
    scratch : Path
        Where packed volumes are unpacked meanwhile; what lies there is no volume.
    report : Report
        Receives what is no volume, and those that cannot be opened.
    workers : Workers
    scale : Scale
        The pixel size that sections are brought to.
    prefer : str, optional
        See `list_volumes`.
    least_side : int
        Pixels that sections have at least a side; planes of smaller ones are left out.

    Attributes
    ----------
    sections : dict of str to naming.Section
        By their names on disk without the extension.
    is_renewed : bool
        A volume that has changed is another one.
    named : collection of str or None
        See `Corpus`.
    known_limits : dict of str to (float, float)
        Grey limits by dataset that were measured before, to be filled by the caller.
    thin : dict of str to list of (number, (height, width))
        By dataset: the sections that were left out for their size.

    Raises
    ------
    InputError
        If there are no volumes.
    """

    is_renewed = False

    def __init__(
        self,
        voldir: Place,
        how: HowToCut,
        scratch: Path,
        report: Report,
        workers: Workers,
        scale: Scale = Scale(),
        prefer: str | None = None,
        least_side: int = 1,
    ) -> None:
        self.root, self._how, self._scratch, self._scale = voldir, how, scratch, scale
        corpus = find_volumes_to_cut(voldir, scratch, report, how, scale, prefer)
        self.named = corpus.named
        self._settings = {source.name: {**how.settings, **source.settings()} for source in corpus.sources}
        self._fingerprints = fingerprint_sources(corpus.sources, report)
        jobs = [OpenJob(source, how, scale) for source in corpus.sources if source.name in self._fingerprints]
        opened = {job.path: volume for job, volume in workers.run(open_volume_to_cut, jobs, report, unit="volume")}
        self._volumes = {job.source.name: opened[job.path] for job in jobs if job.path in opened}
        self._factors: dict[str, dict[int, Factors | None]] = {}
        self._planes: dict[str, tuple[int, ...]] = {}
        self.thin: dict[str, list[tuple[int, tuple[int, int]]]] = {}
        for name, volume in self._volumes.items():
            planes = choose_planes(volume, how.axes, how.anisotropy, report)
            self._factors[name] = find_plane_factors(volume, planes, scale)
            sizes = {plane: self._size_of(name, plane) for plane in planes}
            self._planes[name] = leave_out_thin(volume, sizes, least_side, report)
            self.thin[name] = [
                (sum(map(len, section_indices(volume.shape[plane], how.spacing))), sizes[plane])
                for plane in planes
                if plane not in self._planes[name]
            ]
        self._notes = NotesBeside()
        self._ready: dict[str, tuple[Volume, Limits]] = {}
        self.known_limits: dict[str, tuple[float, float]] = {}
        self.sections: dict[str, naming.Section] = {
            section.stem: section
            for name, volume in self._volumes.items()
            for section in self._sections_of(name, volume)
        }

    @property
    def volumes(self) -> Mapping[str, Volume]:
        """The volumes that could be opened, by name."""
        return self._volumes

    def _sections_of(self, name: str, volume: Volume) -> Iterator[naming.VolumeSection]:
        for plane in self._planes[name]:
            width = naming.index_width(volume.shape[plane])
            for indices in section_indices(volume.shape[plane], self._how.spacing):
                for index in indices:
                    yield naming.VolumeSection(name, plane, index, width)

    def source(self, stem: str) -> Source:
        """Return a section as the ledger sees it: a part of its volume."""
        name = self.sections[stem].dataset
        path = self._volumes[name].path
        return Source(
            path, self._fingerprints[name], name, settings=self._settings[name], is_part=True, is_read_on=True
        )

    def state(self, stem: str) -> str:
        """Return what changes when a section does."""
        name = self.sections[stem].dataset
        return f"{self._fingerprints[name]} {self._settings[name]}"

    def size(self, stem: str) -> tuple[int, int]:
        """Return a section's height and width in pixels."""
        section = self.sections[stem]
        assert isinstance(section, naming.VolumeSection)
        return self._size_of(section.dataset, section.plane)

    def _size_of(self, name: str, plane: int) -> tuple[int, int]:
        return resampled_shape(section_shape(self._volumes[name], plane), self._factors[name][plane])

    def ready(self, datasets: Mapping[str, Sequence[str]], report: Report, workers: Workers) -> Iterator[list[str]]:
        """Yield datasets that can be cut until the next are asked for: their voxels unpacked, their limits known.

        `datasets` tells for each which of its sections are going to be cut.
        """
        planes = {volume.path: self._planes[name] for name, volume in self._volumes.items()}
        known = {self._volumes[name].path: Limits(*pair) for name, pair in self.known_limits.items()}
        volumes = [volume for name, volume in self._volumes.items() if name in datasets]
        for batch in make_batches(volumes):
            wanted = {volume.path: list(self._boxes(volume, datasets[volume.name], workers)) for volume in batch}
            with ready_to_cut(batch, planes, self._how.rescale, self._scratch, report, workers, known, wanted) as ready:
                self._ready = {volume.name: (volume, limits) for volume, limits in ready if limits is not None}
                yield list(self._ready)

    def _boxes(self, volume: Volume, stems: Sequence[str], workers: Workers) -> Iterator[tuple[slice, slice, slice]]:
        """Yield what is read of a volume to cut some of its sections."""
        for plane, indices in (run for group in self.divide(stems, workers) for run in self._runs(group)):
            box = [slice(None)] * 3
            box[plane] = slice(indices[0], indices[-1] + 1)
            yield box[0], box[1], box[2]

    def suits_threads(self, datasets: Collection[str]) -> bool:
        """Return whether datasets that are ready are best cut by threads; see `emcurate.volumes.slabs`."""
        return suits_threads([self._ready[name][0] for name in datasets])

    def divide(self, stems: Sequence[str], workers: Workers) -> Iterator[list[str]]:
        """Divide sections of one dataset among jobs: neighbours of one plane, which are read together."""
        for _, group in groupby(stems, key=self._window_of):
            yield list(group)

    def pieces(self, stems: Sequence[str]) -> tuple[Slab, ...]:
        """Return what yields the pixels of some sections of one dataset that is ready."""
        if not stems:
            return ()
        volume, limits = self._ready[self.sections[stems[0]].dataset]
        factors = self._factors[volume.name]
        return tuple(Slab(volume, plane, indices, limits, factors[plane]) for plane, indices in self._runs(stems))

    def _runs(self, stems: Sequence[str]) -> Iterator[tuple[int, list[int]]]:
        """Yield the plane and the indices of sections of one dataset that are read together."""
        for (name, plane, _), group in groupby(stems, key=self._window_of):
            # Whole xy planes lie together and are read alone; the others cost as much as all that lie between them.
            gap = self._how.spacing if plane == 0 else self._volumes[name].shape[plane]
            for run in _split([self._index_of(stem) for stem in group], self._how.spacing, gap):
                yield plane, run

    def details(self, dataset: str) -> dict[str, Any]:
        """Return what the ledger keeps of a dataset: what must not be measured again."""
        limits = self.limits(dataset)
        return {} if limits is None else {"limits": [limits.low, limits.high]}

    def origin(self, stem: str) -> Origin:
        """Return where a section comes from; its dataset is ready, or its limits are known."""
        name = self.sections[stem].dataset
        volume, limits = self._volumes[name], self.limits(name)
        said = describe_volume(volume, limits, self._notes)
        pair = None if limits is None else (limits.low, limits.high)
        source = path_as_text(volume.path)
        size, pixel_size = volume.voxel_size_nm, self._scale.pixel_size_nm
        region = said.get("region_of")
        return Origin(said["kind"], source, self._fingerprints[name], size, pair, pixel_size, region)

    def limits(self, name: str) -> Limits | None:
        """Return the grey limits of a dataset, None if they are not known."""
        if name in self._ready:
            return self._ready[name][1]
        return Limits(*self.known_limits[name]) if name in self.known_limits else None

    def _window_of(self, stem: str) -> tuple[str, int, int]:
        """Return a section's dataset and plane, and the number of the slab of that plane that it is read with."""
        section = self.sections[stem]
        assert isinstance(section, naming.VolumeSection)
        thickness = sections_at_once(self._volumes[section.dataset], section.plane) * self._how.spacing
        return section.dataset, section.plane, section.index // thickness

    def _index_of(self, stem: str) -> int:
        section = self.sections[stem]
        assert isinstance(section, naming.VolumeSection)
        return section.index


def _split(indices: Sequence[int], spacing: int, gap: int) -> Iterator[list[int]]:
    """Split rising numbers where they are further apart than `gap`, or by no multiple of `spacing`.

    >>> list(_split([0, 3, 9, 10], 3, 3)), list(_split([0, 3, 9, 10], 3, 20))
    ([[0, 3], [9], [10]], [[0, 3, 9], [10]])
    """
    run: list[int] = []
    for index in indices:
        if run and (index - run[-1] > gap or (index - run[0]) % spacing):
            yield run
            run = []
        run.append(index)
    if run:
        yield run
