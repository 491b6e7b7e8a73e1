"""Weeks of labelling at random, against a model that knows nothing of files: who said what, newest last."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from emcurate.labeling.store import LabelStore
from emcurate.patches.label_files import LabelFiles
from emcurate.patches.label_log import LabelLog
from emcurate.patches.label_reading import read_labels
from emcurate.patches.labels import LABELS, load_labels, save_labels
from emcurate.patches.list_names import ListNames

PEOPLE = ("anna", "ben")
MOUNTS = ("/home/anna/patches", "/mnt/cluster/all/patches", "//server/share/patches")
WORDS = ("informative", "uninformative", "unsure", "none")


class Model:
    """All that was ever said, and what was taken back."""

    def __init__(self) -> None:
        self.acts: list[tuple[str, dict[str, str]]] = []
        self.undone: set[int] = set()

    def say(self, who: str, labels: dict[str, str]) -> None:
        if labels:
            self.acts.append((who, labels))

    def undo(self, who: str, own: set[int]) -> None:
        mine = [i for i, act in enumerate(self.acts) if act[0] == who and i not in self.undone and i in own]
        self.undone |= set(mine[-1:])

    def labels(self, who: str | None = None) -> dict[str, str]:
        found: dict[str, str] = {}
        for i, (author, labels) in enumerate(self.acts):
            if i not in self.undone and who in (None, author):
                found |= labels
        return found


class Life:
    """A label file, its list, the sessions open on it, and the model."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.file = directory / "patch_quality_labels.npy"
        self.patches = [f"fly-LOC-0_{i:03d}_0_0.tiff" for i in range(8)]
        self.made = 8
        self.model = Model()
        self.sessions: dict[str, tuple[LabelStore, list[str], set[int]]] = {}

    def open(self, who: str) -> None:
        mount = str(self.random.choice(MOUNTS))
        paths = [f"{mount}/{name}" for name in self.patches]
        store = LabelStore(self.file, paths, who)
        others = set(range(len(self.model.acts)))
        self.sessions[who] = store, list(self.patches), others
        self.check()

    def label(self, who: str) -> None:
        store, patches, own = self.sessions[who]
        indices = self.random.choice(len(patches), self.random.integers(1, 4), replace=False).tolist()
        word = str(self.random.choice(WORDS))
        before, mine = self.model.labels(), self.model.labels(who)
        store.set_labels(indices, [LABELS.index(word)] * len(indices))
        names = [patches[i] for i in indices]
        changed = {n: word for n in names if before.get(n, "none") != word or mine.get(n, "none") != word}
        if changed:
            own.add(len(self.model.acts))
        self.model.say(who, changed)
        self.check()

    def undo(self, who: str) -> None:
        store, patches, own = self.sessions[who]
        # Acts of which no patch was listed when the session began are out of its reach.
        listed = {i for i in own if set(self.model.acts[i][1]) & set(patches)}
        store.undo()
        self.model.undo(who, listed)
        self.check()

    def type_in(self) -> None:
        """Type labels into the file, with nobody at it, and lose one or another of the files beside it."""
        labels = load_labels(self.file)
        places = self.random.choice(len(labels), 2, replace=False).tolist()
        typed = {}
        for place in places:
            word = str(self.random.choice(WORDS))
            if labels[place] != word:
                labels[place] = typed[self.patches[place]] = word
        save_labels(self.file, labels)
        files = LabelFiles(self.file)
        self.model.say("(file)", typed)
        if self.random.random() < 0.3:
            files.listed.unlink()
            self.open("anna")
        self.sessions.clear()

    def relist(self) -> None:
        self.random.shuffle(self.patches)
        if self.random.random() < 0.5:
            self.patches = self.patches[2:]
        count = int(self.random.integers(1, 5))
        fresh = [f"fly-LOC-0_{self.made + i:03d}_0_0.tiff" for i in range(count)]
        self.made += count
        self.patches = fresh + self.patches
        self.sessions.clear()

    def lose_last_write(self) -> None:
        """A session is killed after a change was logged, before it was written to the file or before that was noted."""
        who = next(iter(self.sessions))
        files = LabelFiles(self.file)
        kept = self.file.read_bytes(), files.state.read_bytes()
        self.label(who)
        files.state.write_bytes(kept[1])
        if self.random.random() < 0.5:
            self.file.write_bytes(kept[0])
        self.sessions.clear()

    def copy_about(self, directory: Path) -> None:
        """Copy all to another machine, where times are new."""
        target = directory / f"copy{len(list(directory.iterdir()))}"
        shutil.copytree(self.file.parent, target, copy_function=shutil.copyfile)
        self.file = target / self.file.name
        self.sessions.clear()

    def check(self) -> None:
        expected = self.model.labels()
        assert load_labels(self.file).tolist() == [expected.get(name, "none") for name in self.patches]
        for who, (store, patches, _) in self.sessions.items():
            if who in PEOPLE and patches == self.patches:
                mine = self.model.labels(who)
                if np.array_equal(store.codes, [LABELS.index(expected.get(name, "none")) for name in patches]):
                    assert [LABELS[c] for c in store.own] == [mine.get(name, "none") for name in patches]
        names = ListNames([f"/elsewhere/{name}" for name in sorted(self.patches)])
        read = read_labels(LabelFiles(self.file), names, LabelLog(LabelFiles(self.file).log))
        assert [LABELS[code] for code in read.codes] == [expected.get(name, "none") for name in sorted(self.patches)]


@pytest.mark.parametrize("seed", range(12))
def test_labels_are_what_people_said_whatever_happens_to_lists_and_files(tmp_path, seed):
    (tmp_path / "start").mkdir()
    life = Life(tmp_path / "start", seed)
    life.open("anna")
    for _ in range(60):
        if not life.sessions:
            life.open(str(life.random.choice(PEOPLE)))
        chance = life.random.random()
        who = str(life.random.choice(list(life.sessions)))
        if chance < 0.5:
            life.label(who)
        elif chance < 0.65:
            life.undo(who)
        elif chance < 0.75:
            life.open(str(life.random.choice(PEOPLE)))
        elif chance < 0.83:
            life.type_in()
        elif chance < 0.9:
            life.relist()
        elif chance < 0.95:
            life.lose_last_write()
        else:
            life.copy_about(tmp_path)
