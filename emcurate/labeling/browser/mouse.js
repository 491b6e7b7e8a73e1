// The mouse: a click moves the cursor, dragging and Shift select, a double click toggles.

export function useMouse(grid, { placeOf, moveTo, point, toggle, isWaiting, takeKeys }) {
  let dragging = false;
  const tileOf = (event) => placeOf(event.target.closest?.(".emc-tile"));

  grid.addEventListener("pointerdown", (event) => {
    const place = tileOf(event);
    if (place < 0 || event.button !== 0) return;
    event.preventDefault(); // no text selection, no dragging of pictures
    takeKeys();
    if (isWaiting()) return; // for another page, on which something else is at this place
    dragging = true;
    moveTo(place, event.shiftKey);
  });
  grid.addEventListener("pointerover", (event) => {
    const place = tileOf(event);
    if (dragging && !(event.buttons & 1)) dragging = false;
    if (dragging && place >= 0) moveTo(place, true);
    point(place);
  });
  grid.addEventListener("pointerup", () => (dragging = false));
  grid.addEventListener("pointerleave", () => point(-1));
  grid.addEventListener("dblclick", (event) => tileOf(event) >= 0 && toggle());
  grid.addEventListener("mousedown", (event) => event.preventDefault());
}
