// A patch in its section, in a panel over the half of the grid where the cursor is not.

import { bytesOf, make } from "./dom.js";
import { describe, drawPixels } from "./tiles.js";

const REST_MS = 200; // how long the cursor stays before the kernel is asked
const WIDEST = 0.47; // part of the grid's width
const CHROME = 50; // pixels above and below the picture

export function makeSurroundings(button, { ask, fail }) {
  const canvas = make("canvas");
  const outline = make("div", { className: "emc-outline" });
  const text = make("div", { className: "emc-caption" });
  const picture = make("div", { className: "emc-picture" }, canvas, outline);
  const panel = make("div", { className: "emc-panel", hidden: true }, picture, text);
  const reasons = new Map(); // by patch, why there is nothing to see; nothing if there is
  let tile = null; // at the cursor
  let timer = null;

  function wait() {
    clearTimeout(timer);
    if (!tile) return;
    const wanted = tile.index;
    if (panel.hidden && reasons.has(wanted)) return;
    timer = setTimeout(() => ask(panel.hidden ? "where" : "surroundings", wanted), REST_MS);
  }

  function follow(now, atRight) {
    panel.classList.toggle("emc-left", atRight);
    if (now === tile) return;
    tile = now;
    grey();
    if (!panel.hidden) blank(tile ? "…" : "");
    wait();
  }

  function grey() {
    const reason = (tile && reasons.get(tile.index)) || "";
    button.classList.toggle("emc-closed", Boolean(reason));
    button.setAttribute("aria-disabled", String(Boolean(reason)));
    button.title = reason || button.dataset.title;
  }

  function blank(words) {
    panel.classList.add("emc-stale");
    text.textContent = words;
  }

  function toggle() {
    if (!panel.hidden) return close();
    if (!tile) return;
    // What is greyed out may have been put there since: the kernel is asked again, and says why if not.
    panel.hidden = false;
    blank("…");
    ask("surroundings", tile.index);
  }

  function close() {
    const wasOpen = !panel.hidden;
    panel.hidden = true;
    return wasOpen;
  }

  function receive(answer, buffer) {
    reasons.set(answer.index, answer.reason);
    if (!tile || answer.index !== tile.index) return;
    grey();
    if (answer.type !== "surroundings" || panel.hidden) return;
    if (answer.reason) {
      blank(answer.reason);
      picture.hidden = true;
      return fail(answer.reason);
    }
    picture.hidden = false;
    panel.classList.remove("emc-stale");
    Object.assign(canvas, { width: answer.width, height: answer.height });
    drawPixels(canvas, answer, bytesOf(buffer), [0, 255]);
    const [row, column, height, width] = answer.box;
    const percent = (part, whole) => `${(100 * part) / whole}%`;
    Object.assign(outline.style, {
      top: percent(row, answer.height),
      left: percent(column, answer.width),
      height: percent(height, answer.height),
      width: percent(width, answer.width),
    });
    // As large as half of the grid has room for.
    const room = panel.parentElement;
    const scale = Math.min((WIDEST * room.clientWidth) / answer.width, (room.clientHeight - CHROME) / answer.height);
    Object.assign(picture.style, { width: `${scale * answer.width}px`, height: `${scale * answer.height}px` });
    text.textContent = describe(tile, " · ");
    text.title = answer.source;
  }

  return { panel, follow, toggle, close, receive, stop: () => clearTimeout(timer) };
}
