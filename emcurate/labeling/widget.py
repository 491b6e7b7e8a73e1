"""The labelling widget: carries messages between a `Session` and the browser, where `widget.js` draws it.

It keeps to what the anywidget standard offers, and so works in JupyterLab, Notebook 7 and VS Code.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import anywidget

from emcurate.errors import InputError
from emcurate.labeling.session import THRESHOLD, Session
from emcurate.labeling.tiles import describe_place
from emcurate.patches.labels import LABELS

HERE = Path(__file__).parent

# Datasets shown in the table and offered in the filter, the largest first: a browser takes no 100,000 rows.
DATASETS_SHOWN = 200


class LabelingError(InputError):
    """What keeps a session from being opened; a notebook shows it as one line, not as a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


class LabelingWidget(anywidget.AnyWidget):
    """A session, drawn; display it as the last line of a notebook's cell."""

    _esm = HERE / "widget.js"
    _css = HERE / "widget.css"

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session
        self.on_msg(self._receive)

    def _receive(self, _widget: object, message: dict[str, Any], _buffers: object) -> None:
        if message["type"] == "details":
            self.send({"type": "details", **self._details()})
            return
        page = self.session.page_indices()
        undone = False
        try:
            if message["type"] == "undo":
                undone = bool(self.session.undo())
            else:
                self._handle(message)
        except (InputError, OSError, ValueError) as error:
            self.send({"type": "error", "message": str(error)})
        if message["type"] in ("ready", "turn", "arrange") or page != self.session.page_indices():
            self._send_page(message)
        else:
            self._send_labels(message, undone=undone)

    def _handle(self, message: dict[str, Any]) -> None:
        session = self.session
        if message.get("cursor") is not None:
            session.cursor = message["cursor"]
        match message["type"]:
            case "label":
                session.label(message["indices"], message["label"])
            case "toggle":
                session.toggle(message["indices"])
            case "rest":
                session.label_rest(message["label"])
            case "turn":
                session.turn(message["page"])
            case "arrange" | "draw":
                session.arrange(**message["changes"])
            case "dismiss":
                session.store.notices.clear()
        if message["type"] in ("label", "toggle", "rest"):
            session.save_view()

    def _send_page(self, message: dict[str, Any]) -> None:
        session = self.session
        indices = session.page_indices()
        tiles: list[dict[str, Any]] = []
        buffers: list[bytes] = []
        for index, tile in zip(indices, session.page_tiles(), strict=True):
            path = session.paths[index]
            score = math.nan if session.scores is None else float(session.scores[index])
            tiles.append(
                {
                    "index": index,
                    "label": LABELS[session.labels[index]],
                    "dataset": session.dataset_names[session.datasets[index]],
                    "place": describe_place(path),
                    "path": path,
                    "height": tile.pixels.shape[0],
                    "width": tile.pixels.shape[1],
                    "limits": tile.limits,
                    "reduction": tile.reduction,
                    "problem": tile.problem,
                    "score": None if math.isnan(score) else score,
                    "buffer": -1 if tile.problem else len(buffers),
                }
            )
            if not tile.problem:
                buffers.append(tile.pixels.tobytes())
        content = {
            "type": "page",
            "page": session.page,
            "pages": session.page_count,
            "selected": len(session.selected),
            "total": len(session.paths),
            "tiles": tiles,
            "view": vars(session.view),
            "scored": session.scores is not None,
            "annotators": len(session.store.annotators()),
            "datasets": [name for name, _ in self._largest_datasets()],
        }
        self.send({**content, **self._progress(message)}, buffers)

    def _send_labels(self, message: dict[str, Any], *, undone: bool) -> None:
        labels = {str(i): LABELS[self.session.labels[i]] for i in self.session.page_indices()}
        self.send({"type": "labels", "labels": labels, "undone": undone, **self._progress(message)})

    def _progress(self, message: dict[str, Any]) -> dict[str, Any]:
        session = self.session
        return {
            # By which a view knows the answer to what it asked last.
            "client": message.get("client"),
            "request": message.get("request"),
            "cursor": session.cursor,
            "counts": session.counts(),
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
    order: str | None = None,
    seed: int = 0,
    own_labels_only: bool = False,
    threshold: float = THRESHOLD,
    reroot: tuple[str, str] | None = None,
) -> LabelingWidget:
    """Open the labelling widget on a path list; see `emcurate.labeling.session.Session` for the parameters.

    Raises
    ------
    LabelingError
        If path list, labels or scores cannot be used or do not belong together.
    """
    try:
        session = Session(
            Path(fpaths).expanduser(),
            Path(labels).expanduser(),
            annotator=annotator.strip(),
            scores=None if scores is None else Path(scores).expanduser(),
            order=order,
            seed=seed,
            own_labels_only=own_labels_only,
            threshold=threshold,
            reroot=reroot,
        )
    except InputError as error:
        raise LabelingError(error.path, error.expected, error.found, error.advice) from None
    return LabelingWidget(session)
