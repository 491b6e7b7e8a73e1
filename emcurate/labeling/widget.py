"""The labelling widget: carries messages between a `Session` and the browser, where ``browser/`` draws it.

It keeps to what the anywidget standard offers, and so works in JupyterLab, Notebook 7 and VS Code.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anywidget

from emcurate.errors import InputError
from emcurate.labeling.frontend import STYLE, join_modules
from emcurate.labeling.keys import ACTIONS, choose_keys
from emcurate.labeling.layout import Room
from emcurate.labeling.pace import Pace
from emcurate.labeling.session import Session
from emcurate.labeling.tiles import describe_place
from emcurate.patches.labels import LABELS

# Datasets shown in the table and offered in the filter, the largest first: a browser takes no 100,000 rows.
DATASETS_SHOWN = 200

# What changes labels, so that a failure means that they are not saved.
LABELLING = ("label", "toggle", "rest", "accept", "undo")


class LabelingError(InputError):
    """What keeps a session from being opened; a notebook shows it as one line, not as a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


class LabelingWidget(anywidget.AnyWidget):
    """A session, drawn; display it as the last line of a notebook's cell.

    Parameters
    ----------
    session : Session
    keys : mapping of str to str, optional
        As `choose_keys`.
    """

    _esm = join_modules()
    _css = STYLE

    def __init__(self, session: Session, keys: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self.session = session
        self.chosen_keys = choose_keys(keys or {})
        self.pace = Pace()
        self._shown = False
        self._unsaved: list[int] = []  # patches whose labels could not be saved, until they get one that can
        self.on_msg(self._receive)

    def _receive(self, _widget: object, message: dict[str, Any], _buffers: object) -> None:
        if message["type"] == "details":
            self.send({"type": "details", **self._details()})
            return
        if message["type"] in ("where", "surroundings"):
            self._send_surroundings(message)
            return
        page = self.session.page_indices()
        answer: dict[str, Any] = {"error": "", "note": "", "moved": False}
        try:
            answer |= self._handle(message)
        except (InputError, OSError, ValueError) as error:
            answer["error"] = str(error)
        if message["type"] in LABELLING:
            self._note_failure(message, answer)
        answer["unsaved"] = len(self._unsaved)
        if message["type"] in ("ready", "room", "turn", "arrange") or page != self.session.page_indices():
            self._send_page(message, answer)
        else:
            self._send_labels(message, answer)

    def _handle(self, message: dict[str, Any]) -> dict[str, Any]:
        """Do what a message asks for, and return what is to be said of it beyond the page or the labels."""
        session = self.session
        if message.get("cursor") is not None:
            session.cursor = message["cursor"]
        changed: list[int] = []
        match message["type"]:
            case "ready" | "room" if message.get("room"):
                session.fit(Room(**message["room"]))
            case "label":
                changed = session.label(message["indices"], message["label"])
            case "toggle":
                changed = session.toggle(message["indices"])
            case "rest":
                changed = session.label_rest(message["label"], message["seen"])
            case "accept":
                changed = session.accept(message["seen"])
            case "undo":
                return {"moved": bool(session.undo())}
            case "turn" if message.get("labelled") and self._unsaved:
                session.go_to(self._unsaved[0])
            case "turn":
                session.turn(message["page"])
            case "next":
                found = session.go_to_next_unlabelled()
                return {"moved": found, "note": "" if found else "No other patch here is without a label."}
            case "arrange" | "draw":
                if message.get("room"):
                    session.room = Room(**message["room"])
                session.tell = lambda done, total: self._tell(message, done, total)
                session.arrange(**message["changes"])
            case "dismiss":
                session.store.notices.clear()
        if changed:
            self.pace.add(len(changed), time.monotonic())
        if message["type"] in LABELLING:
            session.save_view()
        return {}

    def _note_failure(self, message: dict[str, Any], answer: dict[str, Any]) -> None:
        """Remember which labels could not be saved until their patches get others; the cursor waits at the first."""
        concerned = list(message.get("indices") or message.get("seen") or ())
        if not answer["error"]:
            self._unsaved = [index for index in self._unsaved if index not in concerned]
            return
        self._unsaved += [index for index in concerned if index not in self._unsaved]
        self.session.go_to(next(iter(self._unsaved), self.session.cursor))
        answer["moved"] = True

    def _tell(self, message: dict[str, Any], done: int, total: int) -> None:
        self.send({"type": "progress", "client": message.get("client"), "done": done, "total": total})

    def _send_surroundings(self, message: dict[str, Any]) -> None:
        """Answer whether a patch's surroundings can be shown, or send them."""
        index = message["index"]
        answer = {"type": message["type"], "client": message.get("client"), "index": index, "reason": ""}
        buffers: list[bytes] = []
        try:
            if message["type"] == "where":
                answer["reason"] = self.session.surroundings_missing(index)
            else:
                scene = self.session.show_surroundings(index)
                height, width = scene.pixels.shape
                answer |= {"height": height, "width": width, "box": scene.box, "source": str(scene.source)}
                buffers.append(scene.pixels.tobytes())
        except (InputError, OSError, ValueError) as error:
            answer["reason"] = str(error)
        self.send(answer, buffers)

    def _send_page(self, message: dict[str, Any], answer: dict[str, Any]) -> None:
        session = self.session
        indices = session.page_indices()
        tiles: list[dict[str, Any]] = []
        buffers: list[bytes] = []
        for index, tile in zip(indices, session.page_tiles(), strict=True):
            path = session.paths[index]
            score = math.nan if session.scores is None else float(session.scores.values[index])
            scored = not math.isnan(score)
            tiles.append(
                {
                    "index": index,
                    "label": LABELS[session.labels[index]],
                    "said": self._said(index),
                    "dataset": session.dataset_names[session.datasets[index]],
                    "place": describe_place(path),
                    "path": path,
                    "height": tile.pixels.shape[0],
                    "width": tile.pixels.shape[1],
                    "limits": tile.limits,
                    "reduction": tile.reduction,
                    "problem": tile.problem,
                    "score": score if scored else None,
                    "model": LABELS[session.scores.code(index)] if scored and session.scores is not None else None,
                    "buffer": -1 if tile.problem else len(buffers),
                }
            )
            if not tile.problem:
                buffers.append(tile.pixels.tobytes())
        content = {
            "type": "page",
            "fresh": not self._shown,
            "page": session.page,
            "pages": session.page_count,
            "selected": len(session.selected),
            "total": len(session.paths),
            "tiles": tiles,
            "view": vars(session.view),
            "size": session.size,
            "scored": session.scores is not None,
            "ranked": session.ranks is not None,
            "alone": self._why_alone(),
            "datasets": [name for name, _ in self._largest_datasets()],
            "keys": self.chosen_keys,
            "help": {action: meaning for action, (_, meaning) in ACTIONS.items()},
        }
        self._shown = True
        self.send({**content, **answer, **self._progress(message)}, buffers)

    def _send_labels(self, message: dict[str, Any], answer: dict[str, Any]) -> None:
        indices = self.session.page_indices()
        labels = {str(i): LABELS[self.session.labels[i]] for i in indices}
        said = {str(i): self._said(i) for i in indices}
        self.send({"type": "labels", "labels": labels, "said": said, **answer, **self._progress(message)})

    def _said(self, index: int) -> dict[str, str]:
        """Return who said what of a patch, if several people did and it is not to be hidden."""
        said = {} if self.session.own_labels_only else self.session.said(index)
        return said if len(said) > 1 else {}

    def _why_alone(self) -> str:
        """Return why there is no disagreement of annotators to be shown, or nothing if there may be."""
        if self.session.own_labels_only:
            return "hidden by OWN_LABELS_ONLY"
        return "" if len(self.session.store.annotators()) > 1 else "only one so far"

    def _progress(self, message: dict[str, Any]) -> dict[str, Any]:
        session = self.session
        return {
            # By which a view knows the answer to what it asked last.
            "client": message.get("client"),
            "request": message.get("request"),
            "cursor": session.cursor,
            "counts": session.counts(),
            "pace": self.pace.per_minute(),
            "undo": session.store.undo_count,
            "notices": session.store.notices,
        }

    def _details(self) -> dict[str, Any]:
        session = self.session
        counts = session.dataset_counts()
        rows = [
            {"name": name, "total": int(counts[i].sum()), **dict(zip(LABELS, counts[i].tolist(), strict=True))}
            for name, i in self._largest_datasets()
        ]
        agreement = [
            {**vars(pair), "kappa": None if math.isnan(pair.kappa) else pair.kappa} for pair in session.agreement()
        ]
        return {"rows": rows, "more": len(session.dataset_names) - len(rows), "agreement": agreement}

    def _largest_datasets(self) -> list[tuple[str, int]]:
        if not hasattr(self, "_largest"):
            sizes = self.session.dataset_counts().sum(1)
            largest = (-sizes).argsort(kind="stable")[:DATASETS_SHOWN].tolist()
            self._largest = [(self.session.dataset_names[i], i) for i in largest]
        return self._largest


def label_patches(
    fpaths: str | os.PathLike[str],
    labels: str | os.PathLike[str],
    *,
    annotator: str = "",
    scores: str | os.PathLike[str] | None = None,
    diverse: str | os.PathLike[str] | None = None,
    order: str | None = None,
    seed: int = 0,
    own_labels_only: bool = False,
    threshold: float | None = None,
    keys: Mapping[str, str] | None = None,
    sources: str | os.PathLike[str] | None = None,
    reroot: tuple[str, str] | None = None,
) -> LabelingWidget:
    """Open the labelling widget on a path list.

    For the parameters see `emcurate.labeling.session.Session`; `keys` are other keys than the usual ones, by actions,
    as in ``{"informative": "1"}``, see `emcurate.labeling.keys`.

    Raises
    ------
    LabelingError
        If path list, labels, scores, ranks or keys cannot be used or do not belong together.
    """
    try:
        choose_keys(keys or {})
        session = Session(
            Path(fpaths).expanduser(),
            Path(labels).expanduser(),
            annotator=annotator.strip(),
            scores=None if scores is None else Path(scores).expanduser(),
            diverse=None if diverse is None else Path(diverse).expanduser(),
            order=order,
            seed=seed,
            own_labels_only=own_labels_only,
            threshold=threshold,
            sources=None if sources is None else Path(sources).expanduser(),
            reroot=reroot,
        )
    except InputError as error:
        raise LabelingError(error.path, error.expected, error.found, error.advice) from None
    return LabelingWidget(session, keys)
