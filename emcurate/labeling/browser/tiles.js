// Patches as tiles: the pixels, and beside them, never over them, the label, the place and the model's score.

import { make } from "./dom.js";
import { LETTERS } from "./keys.js";

export const describe = (tile, between) => `${tile.dataset}${between}${tile.place}`;

const DECIDED = ["informative", "uninformative"];

export const disputed = (tile) => new Set(Object.values(tile.said).filter((label) => DECIDED.includes(label))).size > 1;

export const whoSaid = (tile) =>
  Object.entries(tile.said)
    .map(([who, label]) => `${who || "(no name)"}: ${label}`)
    .join(", ");

// All there is to say of a patch, as nodes.
export function tellOf(tile) {
  const label = tile.label === "none" ? "unlabelled" : tile.label;
  const state = tile.problem ? `cannot be labelled (${tile.problem})` : label;
  const parts = [describe(tile, " · ")];
  if (!tile.problem) parts.push(`${tile.width * tile.reduction} × ${tile.height * tile.reduction} pixels`);
  if (tile.reduction > 1) parts.push(`drawn at 1/${tile.reduction}`);
  if (tile.score !== null) parts.push(`model ${tile.score.toFixed(3)}, ${tile.model}`);
  const said = Object.keys(tile.said).length ? ` · ${whoSaid(tile)}` : "";
  return [make("b", {}, state), ` · ${parts.join(" · ")}`, disputed(tile) ? make("b", {}, said) : said];
}

export function buildTile(tile, id) {
  const node = make("div", { className: "emc-tile", id });
  node.setAttribute("role", "option");
  const frame = make("div", { className: "emc-patch" });
  if (tile.problem) {
    const words = [make("b", {}, "⚠ cannot be shown"), make("span", {}, tile.problem)];
    frame.append(make("div", { className: "emc-problem" }, ...words));
  } else {
    frame.append(make("canvas", { width: tile.width, height: tile.height }));
  }
  const caption = make(
    "div",
    { className: "emc-caption" },
    make("span", { className: "emc-badge" }),
    make("span", { className: "emc-dispute", hidden: true }, "≠"),
    make("span", { className: "emc-scale", hidden: true }, "⤡"),
    make("span", { className: "emc-place" }, tile.dataset, make("span", {}, ` · ${tile.place}`)),
  );
  if (tile.score !== null) {
    const says = `the model gives ${tile.score.toFixed(3)}: ${tile.model}`;
    caption.append(make("span", { className: `emc-score emc-${tile.model}`, title: says }, tile.score.toFixed(2)));
  }
  node.append(frame, caption);
  return node;
}

// One patch far larger than the others must not make these tiny: the middle one of the page sets the scale.
export function usualSide(page) {
  const drawn = page.tiles.filter((tile) => !tile.problem);
  const sides = drawn.map((tile) => tile.reduction * Math.max(tile.width, tile.height));
  return sides.sort((a, b) => a - b)[Math.floor((sides.length - 1) / 2)] ?? 1;
}

export function drawTile(node, tile, grey, { size, usual, stretch }) {
  const canvas = node.querySelector("canvas");
  if (!canvas) return;
  const side = tile.reduction * Math.max(tile.width, tile.height);
  const oversized = side > usual;
  const scale = (size / Math.max(usual, side)) * tile.reduction;
  canvas.style.width = `${tile.width * scale}px`;
  canvas.style.height = `${tile.height * scale}px`;
  // Enlarged, every pixel is a sharp square; made smaller, leaving pixels out would show noise that is not there.
  canvas.style.imageRendering = scale * window.devicePixelRatio < 1 ? "auto" : "pixelated";
  const mark = node.querySelector(".emc-scale");
  mark.hidden = !oversized;
  mark.title = oversized ? `larger than the others: drawn at ${(usual / side).toFixed(2)} of their scale` : "";
  if (canvas.dataset.stretch !== String(stretch)) drawPixels(canvas, tile, grey, stretch ? tile.limits : [0, 255]);
  canvas.dataset.stretch = stretch;
}

export function drawPixels(canvas, { width, height }, grey, [low, high]) {
  const table = new Uint8ClampedArray(256);
  for (let value = 0; value < 256; value++) table[value] = high > low ? (255 * (value - low)) / (high - low) : value;
  const image = new ImageData(width, height);
  const opaque = new Uint32Array(image.data.buffer);
  for (let i = 0; i < grey.length; i++) opaque[i] = 0xff000000 | (table[grey[i]] * 0x010101);
  canvas.getContext("2d").putImageData(image, 0, 0);
}

export function paintTile(node, tile, { atCursor, selected, ranged, unconfirmed }) {
  node.className = `emc-tile emc-${tile.label}`;
  node.classList.toggle("emc-broken", Boolean(tile.problem));
  node.classList.toggle("emc-cursor", atCursor);
  node.classList.toggle("emc-selected", selected && ranged);
  node.classList.toggle("emc-unconfirmed", unconfirmed);
  node.setAttribute("aria-selected", selected);
  node.setAttribute("aria-label", `${describe(tile, ", ")}: ${tile.problem || tile.label}`);
  const badge = node.querySelector(".emc-badge");
  badge.className = `emc-badge emc-${tile.label}`;
  badge.textContent = LETTERS[tile.label];
  const dispute = node.querySelector(".emc-dispute");
  dispute.hidden = !disputed(tile);
  dispute.title = whoSaid(tile);
  const said = Object.keys(tile.said).length ? `\n${whoSaid(tile)}` : "";
  node.title = `${describe(tile, "\n")}${said}`;
}
