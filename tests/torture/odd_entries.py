"""Entries of a directory that are no files, or whose names are odd, and traps that other files lead to."""

import os
import socket
from pathlib import Path

# Good files get these names: everything a file system takes is a name.
ODD_NAMES = (
    *(
        "{}\nnewline",
        "{} 'quotes\"",
        "-rf {}",
        "=HYPERLINK(1) {}",
        "<script>alert(1)<-script> {}",
        "{} $(touch x) `id`",
    ),
    *("{} \u2028 \u0085", "{} \udcff\udc80", "{} é e\u0301", "{}\t\x1b[31m\x07", " {} ", "{}.", "{}.tif", "{}%s%n{{}}"),
    *("{}\\..\\x", "{}\u202egnp", "{}-LOC-", "{}-LOC-0_1", "{}~", "{}:1", "{}" + "x" * 170, "{}" + "é" * 120),
)


def odd_names(case, suffix):
    """Return odd names of files of a suffix that hold the name of a case; one of them has 255 bytes, as many as go."""
    patterns = (*ODD_NAMES, "{}" + "l" * 255)
    return [_shorten(pattern.format(case).encode("utf-8", "surrogateescape"), suffix) for pattern in patterns]


def _shorten(name, suffix):
    return name[: 255 - len(suffix.encode())].decode("utf-8", "surrogateescape") + suffix


def make_odd_kinds(directory: Path, name, suffix):
    """Make a pipe, a socket, a link to a device, ... under names of a suffix; yield (what, name of the case)."""
    outside = directory.parent / "outside"
    outside.mkdir(exist_ok=True)
    kinds = (
        ("a pipe", os.mkfifo),
        ("a socket", make_socket),
        ("a link to a device", lambda path: path.symlink_to("/dev/zero")),
        ("a link to a terminal", lambda path: path.symlink_to("/dev/tty")),
        ("a link to itself", lambda path: path.symlink_to(path.name)),
        ("links round", lambda path: make_round(path)),
        ("a link that leads nowhere", lambda path: path.symlink_to("nowhere")),
        ("a link to a pipe", lambda path: make_piped_link(path, outside)),
        ("a file that must not be read", make_unreadable),
    )
    for number, (what, make) in enumerate(kinds):
        case = f"{name}k{number}"
        make(directory / f"{case}{suffix}")
        yield what, case


def make_socket(path):
    """Make a socket; its directory is entered, since the system takes short paths only."""
    before = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as opened:
            opened.bind(path.name)
    finally:
        os.chdir(before)


def make_round(path):
    """Make two links that lead to one another."""
    other = path.with_name(f".{path.name}")
    path.symlink_to(other.name)
    other.symlink_to(path.name)


def make_piped_link(path, outside):
    """Make a link to a pipe that lies elsewhere."""
    os.mkfifo(outside / path.name)
    path.symlink_to(outside / path.name)


def make_unreadable(path):
    """Make a file that nobody may read; the superuser may."""
    path.write_bytes(b"")
    path.chmod(0)


def make_traps(directory: Path):
    """Make what crafted files name: a pipe, a socket, a link that leads out to a secret, a link loop."""
    if (directory / "pipe").exists():
        return
    secret = directory.parent / "secret.raw"
    secret.write_bytes(b"secret" * 10_000)
    os.mkfifo(directory / "pipe")
    make_socket(directory / "socket")
    (directory / "link.raw").symlink_to(secret)
    (directory / "loop").symlink_to("loop")
