// The bar below the grid: what keys do, for the mouse, and the page.

import { button, make, thousands } from "./dom.js";
import { written } from "./keys.js";
import { badge } from "./status.js";

export function makeButtons({ perform, goTo }) {
  // Buttons say their key, which only the kernel knows.
  const keyed = [];
  const onKey = (action, content, title, asks = { type: action }, name = "") => {
    const key = make("kbd", { className: name && `emc-${name}` });
    const node = button([key, content], title, () => perform(asks));
    keyed.push({ action, key });
    return node;
  };
  const label = (name, text, title) => onKey(name, text, title, { type: "mark", name }, name);
  const rest = (name) => {
    const title = `Mark all in sight that have no label as ${name} (Shift and its key)`;
    return button(badge(name), title, () => perform({ type: "rest", name }));
  };

  const accept = onKey("accept", "Model's", "Give all in sight that have no label the one the model gives");
  const undoText = make("span", {}, "Undo");
  const undo = onKey("undo", undoText, "Take the last action back");
  const around = onKey("surroundings", "Surroundings", "The patch in its section");
  around.dataset.title = around.title;
  const number = make("input", { type: "number", min: 1, title: "Page" });
  number.onchange = () => goTo(Math.max(Math.round(Number(number.value)) || 1, 1) - 1);
  const count = make("span");

  const node = make(
    "div",
    { className: "emc-bar" },
    label("informative", "Informative", "Label the selection as informative"),
    label("uninformative", "Uninformative", "Label the selection as uninformative"),
    label("unsure", "Unsure", "Label the selection as seen and not decided"),
    label("none", "No label", "Take the selection's label away"),
    make("span", { className: "emc-group" }, "All in sight:"),
    rest("informative"),
    rest("uninformative"),
    accept,
    undo,
    around,
    make(
      "span",
      { className: "emc-pages" },
      onKey("next_unlabelled", "Next unlabelled", "Jump to the next patch without a label"),
      button("◀", "Page before (Page Up)", () => perform({ type: "turn", by: -1 })),
      make("label", { title: "Page" }, number, count),
      button("▶", "Next page (Page Down)", () => perform({ type: "turn", by: 1 })),
      onKey("full_screen", "Full screen", "Fill the whole screen, and back"),
      onKey("help", "Keys", "Show or hide the keys"),
    ),
  );

  function show(page) {
    accept.hidden = !page.scored;
    for (const { action, key } of keyed) key.textContent = written(page.keys[action]);
    if (document.activeElement !== number) number.value = page.page + 1; // somebody may be writing there
    number.max = page.pages;
    const some = `, ${thousands(page.selected)} of ${thousands(page.total)} patches`;
    count.textContent = `of ${thousands(page.pages)}${page.selected < page.total ? some : ""}`;
  }

  function setUndo(acts) {
    undo.disabled = acts === 0;
    undoText.textContent = acts ? `Undo (${thousands(acts)})` : "Undo";
  }

  return { node, around, show, setUndo };
}
