"""Take out one guard against hostile data after another, and see that the test named beside it then fails.

A test that passes with its guard taken out proves nothing. Every guard is taken out in a copy of the repository, of
which only one line differs.

Example: python -m tests.torture.guards --only NRRD
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("emcurate", "tests", "raw", "preprocess", "deduplicated", "filtered", "3d", "data_prep", "pyproject.toml")
COPIED += ("curate.py",)

# Seconds a test may take, since without its guard it may wait for ever; and pytest's status for tests that failed.
TEST_SECONDS = 40
PASSED, FAILED = 0, 1


@dataclass(frozen=True)
class Guard:
    """A guard: the words in a file that it consists of, what is there without it, and the test that it has."""

    what: str
    file: str
    words: str
    without: str
    test: str


GUARDS = (
    # What must not be executed.
    Guard(
        "pickles in .npy",
        "emcurate/contents.py",
        "np.load(check_regular(path), mmap_mode=mmap_mode, allow_pickle=False)",
        "np.load(check_regular(path), mmap_mode=mmap_mode, allow_pickle=True)",
        "tests/test_contents.py::test_npy_with_objects_is_never_unpickled",
    ),
    Guard(
        "a path list's info",
        "emcurate/patches/pathlists.py",
        "    numbers = sorted(",
        '    pickle.loads((directory / "info").read_bytes())\n    numbers = sorted(',
        "tests/patches/test_pathlists.py::test_info_is_neither_needed_nor_unpickled",
    ),
    Guard(
        "pickles in .pth",
        "emcurate/classifier/network.py",
        'torch.load(source, map_location="cpu", weights_only=True)',
        'torch.load(source, map_location="cpu", weights_only=False)',
        "tests/classifier/test_network.py::test_weights_are_never_executed",
    ),
    Guard(
        "formats for which Pillow starts other programs",
        "emcurate/images/reading.py",
        "content), formats=FORMATS) as image:\n        _check_with_pillow(path, image, content)\n        image.load()",
        "content)) as image:\n        _check_with_pillow(path, image, content)\n        image.load()",
        "tests/images/test_hostile_images.py::test_postscript_in_disguise_starts_no_other_program",
    ),
    # What must not be read elsewhere.
    Guard(
        "NRRD data files by absolute paths and ..",
        "emcurate/volumes/formats/nrrd.py",
        'if steps.is_absolute() or PureWindowsPath(name).drive or ".." in steps.parts:',
        "if not steps.parts:",
        "tests/volumes/test_formats.py::test_nrrd_headers_that_are_refused",
    ),
    Guard(
        "NRRD data files by links",
        "emcurate/volumes/formats/nrrd.py",
        "if not leads_into(found, path.parent, path.resolve().parent):",
        "if not found.name:",
        "tests/volumes/test_hostile_volumes.py::test_a_link_beside_an_nrrd_header_is_not_followed_out",
    ),
    Guard(
        "other files of an OME set",
        "emcurate/images/tiff_files.py",
        "        _refuse_sets(path, tiff)\n",
        "",
        "tests/volumes/test_hostile_volumes.py::test_no_other_file_is_opened_because_an_ome_description_names_it",
    ),
    Guard(
        "playlists called videos",
        "emcurate/volumes/containers.py",
        "if not head.startswith(_OTHERS):",
        "if not head:",
        "tests/volumes/test_containers.py::test_text_that_names_other_files_is_no_video",
    ),
    Guard(
        "links in tars",
        "emcurate/patches/shards.py",
        "return member.isreg() and not member.issparse() and member.size >= 0",
        "return True",
        "tests/patches/test_shards.py::test_links_and_directories_in_a_tar_are_no_members",
    ),
    Guard(
        "names of COCO that lead out",
        "emcurate/trimming/coco.py",
        "check_relative(image.file_name)",
        "str(image.file_name)",
        "tests/stages/test_trim_coco_untrusted.py::test_file_name_that_leads_out_is_refused",
    ),
    Guard(
        "links in image directories that lead out",
        "emcurate/fetching/safe_names.py",
        "if not leads_into(path, directory):",
        "if not path.name:",
        "tests/stages/test_trim_coco_untrusted.py::test_link_in_image_directory_is_not_followed_out",
    ),
    Guard(
        "links in HDF5",
        "emcurate/images/hdf5_files.py",
        "        if not is_hard(found, step):\n",
        "        if not step:\n",
        "tests/volumes/test_hdf5.py::test_nothing_outside_of_the_file_is_read",
    ),
    Guard(
        "storage of HDF5 in other files, and virtual datasets",
        "emcurate/volumes/formats/hdf5.py",
        "    if dataset.is_virtual or dataset.external:\n",
        "    if not dataset.shape:\n",
        "tests/volumes/test_hdf5.py::test_nothing_outside_of_the_file_is_read",
    ),
    Guard(
        "names of arrays that lead out of a Zarr directory",
        "emcurate/volumes/formats/stores.py",
        "        if not inside or any(mark in str(name) for mark in _MARKS):\n",
        "        if name is ...:\n",
        "tests/volumes/test_ome_zarr.py::test_metadata_lead_nowhere_outside_of_the_directory",
    ),
    Guard(
        "links of a Zarr directory that lead out of it",
        "emcurate/volumes/formats/stores.py",
        "            if found.is_symlink():\n",
        "            if not found.name:\n",
        "tests/volumes/test_ome_zarr.py::test_links_out_of_the_directory_are_refused",
    ),
    Guard(
        "links of N5 blocks that lead out",
        "emcurate/volumes/formats/stores.py",
        "                if not leads_into(found, inside):\n",
        "                if not found.name:\n",
        "tests/volumes/test_n5.py::test_links_out_of_the_directory_and_claims_beyond_it_are_refused",
    ),
    Guard(
        "addresses that lead out of their store",
        "emcurate/addresses.py",
        '    if ".." in inner.split("/") or ".." in [unquote(step) for step in path.split("/")]:\n',
        "    if not url:\n",
        "tests/test_addresses.py::test_what_is_no_address_of_a_volume_is_refused",
    ),
    Guard(
        "names of arrays that lead out of a store on a server",
        "emcurate/volumes/formats/stores.py",
        "        if not inside or any(mark in str(name) for mark in _MARKS):\n",
        "        if name is ...:\n",
        "tests/volumes/test_servers.py::test_metadata_lead_nowhere_outside_of_the_store",
    ),
    Guard(
        "passwords in addresses",
        "emcurate/addresses.py",
        'return f"{prefix}{_without_secrets(self.url)}{SEPARATOR',
        'return f"{prefix}{self.url}{SEPARATOR',
        "tests/test_addresses.py::test_a_password_or_token_is_given_on_but_never_shown",
    ),
    Guard(
        "passwords in what is said of servers",
        "emcurate/volumes/formats/stores.py",
        "self.root.hide(str(error))",
        "str(error)",
        "tests/volumes/test_servers.py::test_chunks_that_do_not_come_whole_are_errors_and_tell_no_secret",
    ),
    Guard(
        "what XML beside BigDataViewer's files declares",
        "emcurate/volumes/formats/bigdataviewer.py",
        """ or b"<!" in text.replace(b"<!--", b"")""",
        "",
        "tests/volumes/test_hdf5.py::test_bigdataviewers_voxel_sizes_come_from_the_xml_beside",
    ),
    # What must not be run or obeyed by the programs that show it.
    Guard(
        "formulas in csv",
        "emcurate/contents.py",
        """[f"'{cell}" if isinstance(cell, str) and is_formula(cell) else cell for cell in row]""",
        "[*row]",
        "tests/stages/test_trim_cards.py::test_a_category_named_like_a_formula_is_text_in_the_report",
    ),
    Guard(
        "names that steer the terminal",
        "emcurate/cli/telling.py",
        "    if text.isprintable():\n",
        "    if text:\n",
        "tests/stages/test_odd_names.py::test_a_message_is_one_line_and_steers_no_terminal",
    ),
    # What must not be written elsewhere.
    Guard(
        "names in zips that lead out",
        "emcurate/fetching/safe_names.py",
        'if ".." in parts:',
        "if not parts:",
        "tests/fetching/test_archives.py::test_refuses_before_anything_is_written",
    ),
    Guard(
        "links in zips",
        "emcurate/fetching/archives.py",
        "if kind not in (0, stat.S_IFREG, stat.S_IFDIR):",
        "if kind < 0:",
        "tests/fetching/test_archives.py::test_refuses_before_anything_is_written",
    ),
    Guard(
        "ledgers that name files elsewhere",
        "emcurate/running/ledger_lines.py",
        'return bool(name) and "\\0" not in name and not path.anchor and ".." not in path.parts',
        "return bool(path.parts)",
        "tests/running/test_ledger.py::test_a_ledger_cannot_name_files_outside_its_directory",
    ),
    # What must not be waited for, or fill memory and disk.
    Guard(
        "pipes, sockets and devices",
        "emcurate/files.py",
        "    if not stat.S_ISREG(mode):\n",
        "    if stat.S_ISDIR(mode):\n",
        "tests/patches/test_hostile_lists.py::test_arrays_that_are_no_files_are_refused",
    ),
    Guard(
        "lists of pages that lead round",
        "emcurate/images/tiff_directories.py",
        "            if offset == met:\n",
        "            if offset < 0:\n",
        "tests/volumes/test_hostile_volumes.py::test_tiff_whose_list_of_pages_has_no_end",
    ),
    Guard(
        "gzip streams that go on after their voxels",
        "emcurate/volumes/layouts.py",
        "if _skip(stream, MOST_APPENDED_BYTES + 1) > MOST_APPENDED_BYTES:",
        "if _skip(stream, 1 << 40) < 0:",
        "tests/volumes/test_checksums.py::test_a_stream_that_goes_on_after_its_voxels_is_not_followed_for_ever",
    ),
    Guard(
        "headers that claim more than a stream can hold",
        "emcurate/volumes/layouts.py",
        "if self._needed_bytes > size * MOST_UNPACKED[self.compression]:",
        "if size < 0:",
        "tests/volumes/test_checksums.py::test_a_header_that_claims_more_than_its_stream_can_hold_is_refused_at_once",
    ),
    Guard(
        "zip bombs",
        "emcurate/fetching/archives.py",
        "if unpacked > RATIO_MATTERS_FROM_BYTES and unpacked > limits.ratio * packed:",
        "if packed < 0:",
        "tests/fetching/test_archives.py::test_bomb_by_ratio",
    ),
    Guard(
        "images that claim more than their file can hold",
        "emcurate/images/reading.py",
        "    if claimed_bytes > max(UNDOUBTED_BYTES, size * PACKING_RATIO_AT_MOST):\n",
        "    if claimed_bytes < 0:\n",
        "tests/images/test_whole.py::test_a_header_that_claims_a_billion_pixels_is_not_believed",
    ),
    Guard(
        "lists of strips that many pages share",
        "emcurate/images/tiff_directories.py",
        "        if self.listed_bytes > _MOST_SHARED * len(self.data):\n",
        "        if self.listed_bytes < 0:\n",
        "tests/volumes/test_tiff_stacks.py::test_a_list_of_strips_that_many_pages_share_is_not_read_for_each",
    ),
    Guard(
        "sizes of Zarr arrays beyond their chunks",
        "emcurate/volumes/formats/chunked.py",
        "            if not is_plausible(grid, len(files), lambda: self._places(files, written)):\n",
        "            if not grid:\n",
        "tests/volumes/test_hostile_volumes.py"
        "::test_the_size_of_a_zarr_array_is_believed_only_as_far_as_its_chunks_are_there",
    ),
    Guard(
        "chunks that fill memory",
        "emcurate/volumes/formats/chunked.py",
        "        if math.prod(decoded) * self.dtype.itemsize > MOST_CHUNK_BYTES:\n",
        "        if not decoded:\n",
        "tests/volumes/test_hostile_volumes.py::test_a_chunk_that_would_fill_memory_is_not_decoded",
    ),
    Guard(
        "packed chunks that fill memory",
        "emcurate/volumes/formats/precomputed.py",
        "    if len(data) > most_bytes:\n",
        "    if not data:\n",
        "tests/volumes/test_hostile_volumes.py"
        "::test_a_packed_chunk_that_unpacks_to_much_more_than_its_voxels_is_not_unpacked",
    ),
    Guard(
        "chunks of HDF5 that fill memory",
        "emcurate/volumes/formats/hdf5.py",
        "    if math.prod(dataset.chunks) * dataset.dtype.itemsize > MOST_CHUNK_BYTES:\n",
        "    if not dataset.chunks:\n",
        "tests/volumes/test_hostile_volumes.py::test_a_chunk_that_would_fill_memory_is_not_decoded",
    ),
    Guard(
        "metadata that fill memory",
        "emcurate/volumes/formats/stores.py",
        "        if len(text) > MOST_JSON_BYTES:\n",
        "        if not place:\n",
        "tests/volumes/test_hostile_volumes.py::test_metadata_that_fill_memory_are_not_read",
    ),
    Guard(
        "pipes among chunks",
        "emcurate/volumes/formats/stores.py",
        "            if not found.is_file():\n",
        "            if not found.name:\n",
        "tests/volumes/test_ome_zarr.py::test_a_pipe_among_the_chunks_is_refused_and_not_waited_for",
    ),
    Guard(
        "sizes of HDF5 datasets beyond their chunks",
        "emcurate/volumes/formats/hdf5.py",
        "    if not is_plausible(grid, written, lambda: _chunk_places(dataset)) or (undefined and written < chunks):\n",
        "    if undefined and written < chunks:\n",
        "tests/volumes/test_hdf5.py::test_chunks_never_written_hold_the_fill_value_but_one_in_a_thousand_must_be_there",
    ),
    Guard(
        "sizes of HDF5 datasets in one piece beyond their file",
        "emcurate/volumes/formats/hdf5.py",
        "        if not 0 < stored <= size:\n",
        "        if stored < 0:\n",
        "tests/volumes/test_hostile_volumes.py::test_hdf5_voxels_in_one_piece_that_are_not_in_the_file_are_refused",
    ),
    # What must not be taken for whole.
    Guard(
        "pages of a TIFF that are stored otherwise than the first",
        "emcurate/volumes/formats/tiff.py",
        "    if len(pages.starts) != shape[0] or not pages.are_alike() or pages.starts.min() < 0:\n",
        "    if len(pages.starts) != shape[0]:\n",
        "tests/volumes/test_tiff_stacks.py::test_one_page_that_is_stored_otherwise_is_read_as_what_it_is",
    ),
    Guard(
        "checksums of packed volumes",
        "emcurate/volumes/layouts.py",
        "self._check_rest(stream, position)",
        "str(position)",
        "tests/volumes/test_checksums.py::test_what_the_judge_refuses_is_refused_and_what_is_taken_has_the_same_voxels",
    ),
    Guard(
        "checksums of PNG",
        "emcurate/images/png_chunks.py",
        "if stored != _CHECKSUM.pack(checksum):",
        "if not stored:",
        "tests/images/test_hostile_images.py::test_every_flipped_bit_of_a_png_is_found",
    ),
    Guard(
        "videos that are cut off",
        "preprocess/vid2stack.py",
        "        if video.missing:\n",
        "        if video.missing < 0:\n",
        "tests/volumes/test_containers.py::test_a_video_that_is_cut_off_is_never_taken_without_a_word",
    ),
    Guard(
        "letters that no path has",
        "emcurate/patches/pathlists.py",
        "    if len(rows):\n",
        "    if len(rows) < 0:\n",
        "tests/patches/test_hostile_lists.py::test_letters_that_no_path_has",
    ),
)


def run_test(root, test):
    """Run a test in a copy of the repository; return pytest's status, and what it said."""
    environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", f"--timeout={TEST_SECONDS}", "-p", "no:cacheprovider", test]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, errors="replace")
    return done.returncode, done.stdout[-1500:] + done.stderr[-500:]


def prove(guard, work):
    """Return what speaks against a guard's test, None if it passes with the guard and fails without it."""
    root = Path(tempfile.mkdtemp(dir=work))
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, root / name)
    try:
        status, said = run_test(root, guard.test)
        if status != PASSED:
            return f"the test does not pass with the guard: {said}"
        text = (root / guard.file).read_text(encoding="utf-8")
        if text.count(guard.words) != 1:
            return f"its words stand {text.count(guard.words)} times in {guard.file}: say here what it is now"
        (root / guard.file).write_text(text.replace(guard.words, guard.without), encoding="utf-8")
        status, said = run_test(root, guard.test)
        # Without its guard a test may also be ended for taking too long, which pytest-timeout makes a failure.
        return None if status == FAILED else f"the test does not fail without the guard (status {status}): {said}"
    finally:
        shutil.rmtree(root, ignore_errors=True)


def main(argv=None):
    """Prove the guards; return 1 if a test does not do what it should."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="WORDS", help="only guards whose description has these words")
    parser.add_argument("-p", "--processes", type=int, default=1, metavar="N", help="guards at a time (default: 1)")
    parser.add_argument("--seed", help="taken as by the other tortures; nothing here is left to chance")
    arguments = parser.parse_args(argv)
    guards = [guard for guard in GUARDS if arguments.only in guard.what]
    with tempfile.TemporaryDirectory(prefix="guards-") as work, ThreadPoolExecutor(arguments.processes) as pool:
        against = list(pool.map(lambda guard: prove(guard, work), guards))
    for guard, problem in zip(guards, against, strict=True):
        print(f"{'proven' if problem is None else 'NOT PROVEN':10}  {guard.what}" + (f": {problem}" if problem else ""))
    failed = sum(problem is not None for problem in against)
    print(f"{len(guards)} guards taken out one by one, {failed} without a test that notices")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
