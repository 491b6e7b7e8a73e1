"""Loops that numba has compiled, kept on disk as machine code and loaded without numba, in a twentieth of the time.

Numba's own cache holds machine code too, but needs all of numba to call it, half a second in each process. Here a
`numba.cfunc`, which takes pointers and numbers as a function of C does, is written as an object file, which llvmlite,
the part of numba that knows machine code, links by itself. What is kept is of one source file, llvmlite and kind of
processor: others make their own. It is as trusted as Python's own `__pycache__`, in which it lies, and is no pickle.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import os
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from emcurate.errors import InputError
from emcurate.files import read_regular
from emcurate.writing import write_bytes

# The name of the function in the object file, and a number that changes when what is kept means another thing.
ENTRY, FORMAT = "entry", "1"

# Length of a digest in bytes: what is kept begins with that of the rest.
DIGEST_BYTES = 16

# What LLVM brings itself.
INTRINSIC = "llvm."

# In place of what would tell Python of an error: loops that are kept make none, and such a call ends the process.
STUB = "declare void @llvm.trap()\ndefine void @{name}() {{\n  call void @llvm.trap()\n  unreachable\n}}\n"
NOTHING = "@{name} = constant i8 0\n"


@dataclass
class Loops:
    """A compiled function of a module, which is loaded, or compiled where nobody has, only once that pays.

    Parameters
    ----------
    module, name, prototype
        As `load` takes them.
    loaded_from, compiled_from : int
        How much this process must have had to do, in all, for loading to pay, and for compiling.
    """

    module: str
    name: str
    prototype: Callable[[int], Any]
    loaded_from: int
    compiled_from: int
    _done: int = 0
    _function: Any = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def pay(self, count: int) -> bool:
        """Note that so much is to be done, and return whether these loops are to do it: it pays, and they are there.

        Where they cannot be loaded, for want of memory most likely, something else has to do it.
        """
        self._done += count
        if self._function is not None:
            return True
        if self._done < self.compiled_from and not (self._done >= self.loaded_from and is_kept(self.module)):
            return False
        with contextlib.suppress(ImportError, OSError, MemoryError, RuntimeError):
            self._load()
        return self._function is not None

    def __call__(self, *arguments: int) -> None:
        """Run the loops, without Python's lock."""
        self._load()(*arguments)

    def _load(self) -> Any:
        with self._lock:  # or several threads would compile them at once
            if self._function is None:
                self._function = load(self.module, self.name, self.prototype)
        return self._function


def addressable(section: npt.NDArray[np.uint8], ends: npt.NDArray[np.int32]) -> npt.NDArray[np.uint8]:
    """Return a section whose rows lie in memory as loops expect, or raise `ValueError` where places are outside it.

    Of a pointer nobody could tell what does not lie in the section.

    Parameters
    ----------
    section : (height, width) uint8
    ends : (n, 4) int32
        First row, first column, and the row and column behind the last, of all places in it.
    """
    if ends.min() < 0 or ends[:, 2].max() > section.shape[0] or ends[:, 3].max() > section.shape[1]:
        raise ValueError(f"places outside a section of {section.shape}")
    if section.strides[1] != 1 or section.strides[0] < section.shape[1]:
        return section.copy()  # not ascontiguousarray, which leaves a single row as it is
    return section


def is_kept(module: str) -> bool:
    """Return whether the loops of a module are kept, so that they are soon there."""
    return _find_kept(module) is not None


@functools.cache
def load(module: str, name: str, prototype: Callable[[int], Any]) -> Any:
    """Return a compiled function of a module, which is only imported, and compiles it, if nothing is kept of it.

    Parameters
    ----------
    module : str
    name : str
        Of a `numba.cfunc` in it, the only one of it that is loaded so.
    prototype : ctypes function type
        That it has; it is called without Python's lock.
    """
    code = _find_kept(module)
    if code is None:
        compiled = getattr(importlib.import_module(module), name)
        code = _emit(compiled.inspect_llvm(), compiled.native_name)
        _keep(module, code)
    return prototype(_link(code))


def _find_kept(module: str) -> bytes | None:
    """Return the object file that is kept of a module, if it is whole."""
    for path in _paths(module):
        with contextlib.suppress(InputError, OSError):
            data = read_regular(path)
            if data[:DIGEST_BYTES] == _digest(data[DIGEST_BYTES:]):
                return data[DIGEST_BYTES:]
    return None


def _keep(module: str, code: bytes) -> None:
    """Keep an object file, if there is any place for it."""
    for path in _paths(module):
        with contextlib.suppress(InputError, OSError):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_bytes(path, _digest(code) + code)
            return


@functools.cache
def _paths(module: str) -> tuple[Path, ...]:
    """Return where the code of a module may be kept: beside it, as Python's own, or else in the user's cache."""
    import llvmlite
    import llvmlite.binding as llvm

    spec = importlib.util.find_spec(module)
    source = Path(spec.origin if spec is not None and spec.origin is not None else "")
    try:
        text = read_regular(source)
    except (InputError, OSError):  # it is none of a directory's files
        return ()
    features = llvm.get_host_cpu_features().flatten()
    of = (FORMAT, llvmlite.__version__, llvm.get_default_triple(), llvm.get_host_cpu_name(), features)
    key = _digest("\0".join(of).encode() + text).hex()
    name = f"{source.stem}-{key}.o"
    return tuple(place / name for place in (source.parent / "__pycache__", *_cache_directories()))


def _cache_directories() -> Iterator[Path]:
    """Yield where a user's programs keep what they can make again."""
    with contextlib.suppress(RuntimeError):  # there is no home
        home = Path("~/Library/Caches" if sys.platform == "darwin" else "~/.cache").expanduser()
        yield Path(os.environ.get("XDG_CACHE_HOME") or home) / "emcurate"


def _digest(data: bytes) -> bytes:
    return xxhash.xxh3_128_digest(data)


def _emit(text: str, name: str) -> bytes:
    """Return a function of a module, given as LLVM's text, as an object file that needs nothing of numba or Python."""
    llvm = _llvm()
    module = llvm.parse_assembly(text)
    missing = [each.name for each in module.functions if each.is_declaration and not each.name.startswith(INTRINSIC)]
    values = [each.name for each in module.global_variables if each.is_declaration]
    stubs = [STUB.format(name=each) for each in missing] + [NOTHING.format(name=each) for each in values]
    for stub in stubs:
        module.link_in(llvm.parse_assembly(stub))
    module.get_function(name).name = ENTRY
    module.verify()
    code: bytes = _target_machine().emit_object(module)
    return code


_linked: list[Any] = []  # what holds the memory of machine code


def _link(code: bytes) -> int:
    """Return the address of the function in an object file."""
    llvm = _llvm()
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _target_machine())
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    _linked.append(engine)
    address: int = engine.get_function_address(ENTRY)
    return address


def _llvm() -> Any:
    """Return llvmlite, ready for this machine."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm


def _target_machine() -> Any:
    llvm = _llvm()
    features = llvm.get_host_cpu_features().flatten()
    target = llvm.Target.from_default_triple()
    return target.create_target_machine(cpu=llvm.get_host_cpu_name(), features=features, opt=3)
