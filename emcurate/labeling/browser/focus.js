// Who has the keys: the grid, whenever nobody is writing or steering elsewhere.

const ONCE = ["step", "undo"]; // what a key that is held down may do again; it must not label patch after patch
const EDITING = /^[acvxyz]$/i; // with Ctrl: what they would do to the notebook's cells nobody means who is in here
const TYPED_IN = "input, textarea, select, [contenteditable=true]";

export function shareKeys(root, grid, { asked, perform }) {
  let steered = null; // the control that a key has just moved bit by bit: it keeps the keys until it is left

  const takeKeys = () => grid.focus({ preventScroll: true });
  const meant = (event) => (event.target === grid ? asked(event) : null);

  // Notebook 7 looks at keys before they get here, and leaves alone those that go to an element with this attribute. So
  // it gets those with Ctrl that mean nothing here, such as that which saves the notebook, and no others: D, D would
  // delete the cell.
  function claim(event) {
    const plain = !(event.ctrlKey || event.metaKey || event.altKey);
    const ours = plain || EDITING.test(event.key) || meant(event) !== null;
    if (ours) event.target.dataset.lmSuppressShortcuts = "true";
    else delete event.target.dataset.lmSuppressShortcuts;
    return ours;
  }

  const early = (event) => root.contains(event.target) && claim(event);
  const stop = () => window.removeEventListener("keydown", early, true);
  root.addEventListener("focusin", () => window.addEventListener("keydown", early, true));
  root.addEventListener("focusout", stop);

  root.addEventListener("keydown", (event) => {
    if (!claim(event)) return;
    event.stopPropagation(); // JupyterLab and VS Code have meanings of their own for most of these keys
    if (event.target !== grid) {
      steered = /^(Arrow|Page|Home|End)/.test(event.key) ? event.target : null;
      if (event.key === "Escape") takeKeys();
      return;
    }
    const action = asked(event);
    if (!action) return;
    event.preventDefault();
    if (!event.repeat || ONCE.includes(action.type)) perform(action);
  });
  root.addEventListener("pointerdown", () => (steered = null));
  root.addEventListener("change", (event) => event.target !== steered && takeKeys());
  root.addEventListener("keyup", (event) => event.key === "Enter" && event.target.matches("input") && takeKeys());
  root.addEventListener("click", (event) => {
    const other = event.target.closest("input, select, label, summary, a, .emc-details");
    if (event.target.closest("button") || !other) takeKeys();
  });

  // After the cell was run, unless somebody is writing elsewhere by now.
  function takeKeysAtFirst() {
    const active = document.activeElement;
    if (active?.matches(TYPED_IN) && (active.value ?? active.textContent).trim()) return;
    root.scrollIntoView({ block: "start" });
    takeKeys();
  }

  return { takeKeys, takeKeysAtFirst, stop };
}
