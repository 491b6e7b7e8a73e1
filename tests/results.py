"""What a stage wrote, to be compared."""


def contents(directory):
    """Every file below a directory but those that only this project reads: bytes by relative name."""
    files = (path for path in directory.rglob("*") if path.is_file() and ".emcurate" not in path.parts)
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in files}
