"""The package as pip installs it: the scripts come along, one command runs them, and PyTorch may be missing."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image

import emcurate
from emcurate import __main__ as dispatcher
from tests.textures import make_texture

ROOT = Path(__file__).resolve().parent.parent
BUILD = "import setuptools.build_meta as backend; backend.build_wheel(r'{}')"
SCRIPTS = [
    "curate.py",
    *(path.relative_to(ROOT).as_posix() for d in dispatcher.DIRECTORIES for path in (ROOT / d).glob("*.py")),
]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A wheel made of a copy of the checkout, unpacked as pip would, in an environment without PyTorch."""
    work = tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "tests", "benchmarks", "docs", "demo")
    shutil.copytree(ROOT, work / "checkout", ignore=ignored)
    command = [sys.executable, "-c", BUILD.format(work)]
    subprocess.run(command, cwd=work / "checkout", check=True, capture_output=True)
    with zipfile.ZipFile(next(work.glob("*.whl"))) as wheel:
        wheel.extractall(work / "site")
    for name in ("torch", "torchvision"):
        missing = f"raise ModuleNotFoundError(\"No module named '{name}'\", name='{name}')\n"
        (work / "site" / f"{name}.py").write_text(missing)
    return work / "site"


def run(installed, directory, *words):
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    command = [sys.executable, "-m", "emcurate", *map(str, words)]
    return subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True)


def test_a_wheel_has_all_scripts_and_the_command(installed):
    found = {path.relative_to(installed / "emcurate" / "scripts").as_posix()
             for path in (installed / "emcurate" / "scripts").rglob("*") if path.is_file()}  # fmt: skip
    assert found == {*SCRIPTS, "labeling.ipynb"}
    for script in found:
        assert (installed / "emcurate" / "scripts" / script).read_bytes() == (ROOT / script).read_bytes()
    entry_points = next(installed.glob("*.dist-info")) / "entry_points.txt"
    assert "emcurate = emcurate.__main__:main" in entry_points.read_text()
    assert not (installed / "emcurate" / "tests").exists() and not (installed / "setup.py").exists()
    assert (installed / "emcurate" / "labeling" / "browser" / "widget.js").exists()


def test_one_command_lists_the_stages_with_what_they_do(installed, tmp_path):
    listed = run(installed, tmp_path)
    assert listed.returncode == 0
    for script in SCRIPTS:
        assert f"\n  {Path(script).stem} " in listed.stdout
    assert "Cut sections into square patches and hash each of them." in listed.stdout
    assert run(installed, tmp_path, "--version").stdout == f"emcurate {emcurate.__version__}\n"
    wrong = run(installed, tmp_path, "crop_patch", "--help")
    assert wrong.returncode == 2 and "did you mean crop_patches" in wrong.stderr
    for spelling in ("crop_patches", "crop-patches", "raw/crop_patches.py"):
        assert run(installed, tmp_path, spelling, "--help").stdout.startswith("usage: crop_patches.py")


def test_the_notebook_is_put_where_it_is_wanted_and_never_over_another(installed, tmp_path):
    assert run(installed, tmp_path, "labeling").returncode == 0
    assert (tmp_path / "labeling.ipynb").read_bytes() == (ROOT / "labeling.ipynb").read_bytes()
    (tmp_path / "labeling.ipynb").write_text("mine")
    assert "is there already" in run(installed, tmp_path, "labeling").stdout
    assert (tmp_path / "labeling.ipynb").read_text() == "mine"


def test_exemplars_need_no_pytorch_and_what_does_says_what_to_install(installed, tmp_path):
    (tmp_path / "images").mkdir()
    for number, image in enumerate(make_texture((3, 96, 96))):
        Image.fromarray(image).save(tmp_path / "images" / f"{number}.png")
    arguments = ["curate", "--images", "images", "--out", "out", "-cs", 32, "-p", 2]
    made = run(installed, tmp_path, *arguments, "--until", "deduplicate")
    assert made.returncode == 0, made.stderr
    assert list((tmp_path / "out" / "crop_patches").glob("*.tiff"))
    fpaths, weights = tmp_path / "out" / "deduplicate" / "deduplicated_fpaths.npz", tmp_path / "weights.pth"
    weights.write_bytes(b"PK")
    failed = run(installed, tmp_path, "classify_nn", fpaths, tmp_path / "classified", "--weights", weights)
    assert failed.returncode == 1
    assert failed.stderr.endswith(
        "classify_nn: expected the package torch, found none; install it with: pip install 'emcurate[classifier]', or "
        "in a checkout: make install EXTRAS=classifier\n"
    )


def test_the_checkout_is_run_where_it_is_installed_as_such(tmp_path):
    assert dispatcher.find_root() == ROOT
    assert sorted(map(str, dispatcher.list_scripts(ROOT).values())) == sorted(str(ROOT / script) for script in SCRIPTS)
