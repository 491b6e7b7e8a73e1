"""Who may import whom, read off the syntax trees; see CONTRIBUTING.md."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
STAGE_DIRECTORIES = ("preprocess", "raw", "deduplicated", "filtered", "3d", "data_prep")
STAGES = [path for directory in STAGE_DIRECTORIES for path in sorted((ROOT / directory).glob("*.py"))]
PACKAGE = sorted((ROOT / "emcurate").rglob("*.py"))
FORMAT_LIBRARIES = {"mrcfile", "nrrd", "nibabel", "h5py", "zarr", "tensorstore", "tifffile"}
MAY_READ_FORMATS = ("emcurate/images/", "emcurate/volumes/formats/", "emcurate/patches/")
MAY_IMPORT_TORCH = ("emcurate/classifier/", "filtered/")


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def imports(path):
    """Every module a file imports, anywhere in it, by its full dotted name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}: relative import"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def packages(path):
    return {module.partition(".")[0] for module in imports(path)}


def calls(path):
    names = (node.func for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call))
    return {name.id for name in names if isinstance(name, ast.Name)}


def test_there_is_something_to_check():
    assert len(STAGES) >= 12
    assert len(PACKAGE) >= 15


@pytest.mark.parametrize("path", PACKAGE, ids=name_of)
def test_the_package_never_imports_a_stage(path):
    assert not packages(path) & {*STAGE_DIRECTORIES, "curate", "demo"}


@pytest.mark.parametrize("path", STAGES, ids=name_of)
def test_a_stage_never_imports_a_stage(path):
    assert not packages(path) & {*STAGE_DIRECTORIES, "curate", "demo", *(stage.stem for stage in STAGES)}
    assert "import_module" not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", PACKAGE, ids=name_of)
def test_only_cli_parses_arguments_and_prints(path):
    if not name_of(path).startswith("emcurate/cli/"):
        assert "argparse" not in packages(path)
        assert "print" not in calls(path)


# From the ground up. A room may import what is in its own wing and what lies below it, never what is beside or above.
FLOORS = (
    {"errors", "naming", "partials", "durability", "exchange", "start", "markdown", "licences", "__main__"},
    {"files", "addresses"},
    {"outputs", "contents"},
    {"writing"},
    {"running", "images"},
    {"volumes", "patches", "fetching", "pictures"},
    {"labeling", "classifier", "diversity", "trimming", "corpora", "comparison", "reporting", "cli"},
    {"curation"},
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def room_of(module):
    return module.split(".")[1] if module.startswith("emcurate.") else None


@pytest.mark.parametrize("path", PACKAGE, ids=name_of)
def test_imports_only_go_down(path):
    parts = path.relative_to(ROOT / "emcurate").with_suffix("").parts
    if parts == ("__init__",):
        return
    for module in imports(path):
        room = room_of(module)
        # `from emcurate import __version__` names no room.
        if room not in (None, parts[0], "__version__"):
            assert FLOOR_OF[room] < FLOOR_OF[parts[0]], f"{name_of(path)} imports {module}"


def test_every_wing_says_what_lives_there():
    for wing in (ROOT / "emcurate").iterdir():
        if wing.is_dir() and any(wing.glob("*.py")):
            assert wing.name in FLOOR_OF
            assert ast.get_docstring(ast.parse((wing / "__init__.py").read_text(encoding="utf-8")))


def test_tests_lie_in_folders_named_after_the_wings():
    folders = {path.name for path in (ROOT / "tests").iterdir() if any(path.glob("test_*.py"))}
    assert folders <= {*FLOOR_OF, "stages", "torture"}


@pytest.mark.parametrize("path", [*PACKAGE, *STAGES], ids=name_of)
def test_only_readers_import_format_libraries(path):
    if not name_of(path).startswith(MAY_READ_FORMATS):
        assert not packages(path) & FORMAT_LIBRARIES


@pytest.mark.parametrize("path", [*PACKAGE, *STAGES, ROOT / "curate.py"], ids=name_of)
def test_only_the_classifier_imports_torch(path):
    if not name_of(path).startswith(MAY_IMPORT_TORCH):
        assert not packages(path) & {"torch", "torchvision"}


def test_naming_needs_the_standard_library_only():
    assert packages(ROOT / "emcurate" / "naming.py") <= sys.stdlib_module_names


@pytest.mark.parametrize("path", [*PACKAGE, *STAGES, ROOT / "curate.py"], ids=name_of)
def test_nothing_is_unpickled_or_put_on_the_path(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.keyword) and node.arg in ("allow_pickle", "weights_only"):
            assert isinstance(node.value, ast.Constant)
            assert node.value.value is (node.arg == "weights_only")
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("np.load", "numpy.load"):
            assert "allow_pickle" in {keyword.arg for keyword in node.keywords}
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
            assert "weights_only" in {keyword.arg for keyword in node.keywords}
        if isinstance(node, ast.Attribute):
            # Of pickle's may be named what writes, and the error torch raises when it refuses to unpickle.
            assert not ast.unparse(node).startswith("pickle.") or node.attr in ("dumps", "UnpicklingError")
            assert ast.unparse(node) != "sys.path"


# What reads files that somebody else made.
READERS = [path for path in PACKAGE if name_of(path).startswith(MAY_READ_FORMATS) or "volumes" in path.parts]


@pytest.mark.parametrize("path", READERS, ids=name_of)
def test_readers_open_files_by_one_rule(path):
    """By `emcurate.files`, which opens no pipe, socket or device; libraries by the one module that restrains them."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        name, keywords = ast.unparse(node.func), {keyword.arg for keyword in node.keywords}
        if name == "open":
            mode = node.args[1].value if len(node.args) > 1 else "r"
            assert mode != "r" and (mode != "rb" or "opener" in keywords), f"line {node.lineno}: open_regular"
        assert not name.endswith((".read_bytes", ".read_text")), f"line {node.lineno}: read_regular"
        if name == "Image.open":
            assert "formats" in keywords, f"line {node.lineno}: Pillow would try all formats that it knows"
        if name.endswith(("ParquetFile", "pq.read_table", "pq.read_schema")):
            assert name_of(path) == "emcurate/patches/parquet.py", f"line {node.lineno}: open_parquet"
        if name.endswith(("ParquetWriter", "pq.write_table")) and "file" not in map(ast.unparse, node.args):
            assert name_of(path) == "emcurate/patches/parquet.py", f"line {node.lineno}: write_parquet"
        if name.endswith("TiffFile"):
            assert name_of(path) == "emcurate/images/tiff_files.py", f"line {node.lineno}: open_tiff"


# What a file of these reads is the system's, the package's own, or was looked at first.
READ_OTHERWISE = ("writing", "partials", "__main__", "labeling/frontend", "reporting/page")


@pytest.mark.parametrize("path", [*PACKAGE, *STAGES], ids=name_of)
def test_nothing_waits_for_who_may_write_into_a_pipe(path):
    """Files that lie where results or inputs do may be pipes: they are read by `emcurate.files`."""
    attributes = {
        node.attr for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Attribute)
    }
    if name_of(path) not in [f"emcurate/{name}.py" for name in READ_OTHERWISE]:
        assert not attributes & {"read_bytes", "read_text"}, "read_regular"
    else:
        assert attributes & {"read_bytes", "read_text"}, "it need not be named here"


def test_stage_directories_are_no_packages():
    for directory in STAGE_DIRECTORIES:
        assert not (ROOT / directory / "__init__.py").exists()
    assert not [path for path in PACKAGE if path.name == "utils.py"]


@pytest.mark.parametrize("path", STAGES, ids=name_of)
def test_a_stage_has_the_shape_of_a_stage(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert {"run", "build_parser", "main"} <= functions
    docstring = ast.get_docstring(tree)
    assert docstring
    for word in ("Reads:", "Writes:", "Example:"):
        assert word in docstring
