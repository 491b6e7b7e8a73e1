// What of the widget can be seen, and how much room there is for patches.

// Of a tile, in CSS pixels; the style sheet takes them from here.
export const FRAME = { border: 4, caption: 22, gap: 8 };
const GRID_EDGE = 14; // the grid's padding and border, both sides together
const BELOW = 16; // what the notebook has around the widget
const ROUNDING = 3; // by how many pixels a tile may be cut and still count as seen whole

// The part of the notebook that scrolls; elsewhere it is the window.
const scroller = (root) => root.closest(".jp-WindowedPanel-outer") ?? root.closest(".jp-Notebook");

export const whatResizes = (root) => [root.parentElement, scroller(root)].filter(Boolean);

export function measureRoom(root, grid) {
  const frame = document.fullscreenElement === root || root.classList.contains("emc-maximised") ? null : scroller(root);
  // What is below the buttons may be below the fold.
  const around = root.querySelector("details").offsetTop - root.offsetTop - grid.offsetHeight;
  const width = grid.offsetWidth - GRID_EDGE + FRAME.gap;
  if (!grid.offsetWidth) return null; // not on the screen yet
  return {
    width,
    height: (frame?.clientHeight ?? window.innerHeight) - around - BELOW - GRID_EDGE + FRAME.gap,
    frame_width: 2 * FRAME.border + FRAME.gap,
    frame_height: 2 * FRAME.border + FRAME.caption + FRAME.gap,
  };
}

function inside(box, limits) {
  return {
    left: Math.max(box.left, limits.left),
    top: Math.max(box.top, limits.top),
    right: Math.min(box.right, limits.right),
    bottom: Math.min(box.bottom, limits.bottom),
  };
}

// The tiles that are on the screen: whole, or, of one larger than the window, as much as it shows; not under a panel.
export function inSight(root, grid, tiles, panels) {
  let seen = { left: 0, top: 0, right: window.innerWidth, bottom: window.innerHeight };
  for (const frame of [scroller(root), grid]) if (frame) seen = inside(frame.getBoundingClientRect(), seen);
  const covered = panels.filter((panel) => !panel.hidden).map((panel) => panel.getBoundingClientRect());
  const whole = (shown, side, most) => shown >= Math.min(side, most) - ROUNDING;
  return tiles.map((tile) => {
    const box = tile.getBoundingClientRect();
    const shown = inside(box, seen);
    const across = whole(shown.right - shown.left, box.width, seen.right - seen.left);
    const down = whole(shown.bottom - shown.top, box.height, seen.bottom - seen.top);
    return across && down && !covered.some((panel) => overlap(panel, box));
  });
}

const overlap = (one, other) =>
  one.left < other.right && one.right > other.left && one.top < other.bottom && one.bottom > other.top;
