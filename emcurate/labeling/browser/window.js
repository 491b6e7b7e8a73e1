// The window: how much room it has, told to the kernel whenever that changes, and the full screen.

import { measureRoom, whatResizes } from "./sight.js";

const SETTLED_MS = 150; // after a window was last resized

export function watchWindow(el, root, grid, { tell, takeKeys }) {
  let settle = null;
  let told = "";

  function refit() {
    const room = measureRoom(root, grid);
    if (!room) return;
    grid.style.setProperty("--room", `${Math.max(room.height, 120)}px`);
    const now = JSON.stringify(room);
    if (now === told) return;
    told = now;
    tell(room);
  }

  function refitSoon() {
    clearTimeout(settle);
    // Nothing is there yet to be disturbed when it is first drawn.
    settle = setTimeout(refit, told ? SETTLED_MS : 0);
  }

  const resized = new ResizeObserver(refitSoon);
  const watch = () => [el, ...whatResizes(root)].forEach((node) => resized.observe(node));

  function changed() {
    watch();
    refitSoon();
  }

  function toggleFullScreen() {
    if (document.fullscreenElement === root) return void document.exitFullscreen();
    if (root.classList.contains("emc-maximised")) return maximise(false);
    // Not everything that shows notebooks lets them have the whole screen; the whole window is next best.
    const wanted = root.requestFullscreen?.() ?? Promise.reject(new Error("there is no full screen here"));
    wanted.catch(() => maximise(true));
  }

  function maximise(whole) {
    root.classList.toggle("emc-maximised", whole);
    changed();
    takeKeys();
  }

  function shown() {
    changed();
    takeKeys();
  }

  watch();
  window.addEventListener("resize", changed);
  root.addEventListener("fullscreenchange", shown);
  return {
    refit,
    room: () => measureRoom(root, grid),
    toggleFullScreen,
    stop: () => {
      clearTimeout(settle);
      resized.disconnect();
      window.removeEventListener("resize", changed);
    },
  };
}
