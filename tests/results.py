"""What a stage wrote, to be compared."""


def contents(directory):
    """Every file below a directory but those that only this project reads: bytes by relative name."""
    files = (path for path in directory.rglob("*") if path.is_file() and ".emcurate" not in path.parts)
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in files}


def check_each_selection_after_another(run, selections, order, directory):
    """Check that each selection, made after another, equals a fresh one, or without --overwrite is refused whole.

    Parameters
    ----------
    run : function
        Makes a selection: takes the output directory and flags, returns the exit status.
    selections : list of list
        The flags of each.
    order : sequence of int
        Which of them are made, after the first, one upon the other.
    directory : Path
    """
    fresh = []
    for number, flags in enumerate(selections):
        assert run(directory / f"{number}", *flags) == 0
        fresh.append(contents(directory / f"{number}"))
    assert len({frozenset(made.items()) for made in fresh}) == len(selections)
    out, now = directory / "0", 0
    for later in order:
        assert run(out, *selections[later]) == 1
        assert contents(out) == fresh[now]
        assert run(out, *selections[later], "--overwrite") == 0
        assert contents(out) == fresh[later]
        now = later
