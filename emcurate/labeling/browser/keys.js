// What keys mean: those that a person may choose come from the kernel, by action; see keys.py.

import { make } from "./dom.js";

export const LABELS = ["informative", "uninformative", "unsure", "none"];
export const LETTERS = { informative: "I", uninformative: "U", unsure: "?", none: "" };

// A key as it is written in keys.py. A letter counts by what it prints, or, where it prints none of a to z, by its
// place; a digit by its place, since on some keyboards it takes Shift to print one.
export function keyOf(event) {
  const digit = /^(?:Digit|Numpad)(\d)$/.exec(event.code ?? "");
  if (digit) return digit[1];
  if (/^[a-z]$/i.test(event.key)) return event.key.toLowerCase();
  const place = /^Key([A-Z])$/.exec(event.code ?? "");
  if (place) return place[1].toLowerCase();
  return event.key === " " ? "Space" : event.key;
}

// Returns what a key asks for, or null for a key that is none of ours.
export function understand(event, keys, columns) {
  const key = keyOf(event);
  const action = Object.keys(keys).find((name) => keys[name] === key);
  if (event.ctrlKey || event.metaKey) return key === "z" && !event.altKey && !event.shiftKey ? { type: "undo" } : null;
  if (event.altKey) return null;
  const extend = event.shiftKey;
  if (LABELS.includes(action)) {
    if (extend) return action === "none" ? null : { type: "rest", name: action };
    return { type: "mark", name: action };
  }
  if (action === "next_page") return { type: "turn", by: extend ? -1 : 1 };
  if (action) return { type: action };
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, Home: -Infinity, End: Infinity };
  if (key in steps) return { type: "step", by: steps[key], extend };
  switch (key) {
    case "PageDown": return { type: "turn", by: 1 };
    case "PageUp": return { type: "turn", by: -1 };
    case "Escape": return { type: "close" };
  }
  return null;
}

export const written = (key) => (key.length === 1 ? key.toUpperCase() : key);

export function keyHelp(keys, help) {
  const fixed = [
    [["←", "→", "↑", "↓", "Home", "End"], "move; with Shift, select a range"],
    [["Page Down", "Page Up"], "next page, page before"],
    [["Escape"], "close what lies over the grid"],
  ];
  const chosen = Object.keys(keys).map((action) => [[written(keys[action])], help[action]]);
  const rows = [...chosen, ...fixed].map(([names, meaning]) =>
    make("div", {}, make("span", {}, ...names.map((name) => make("kbd", {}, name))), meaning),
  );
  return make("div", { className: "emc-keys" }, ...rows);
}
