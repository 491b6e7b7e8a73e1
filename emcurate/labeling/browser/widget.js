// Draws a labelling session and turns keys and clicks into messages; what they mean is decided in session.py.
//
// A label shows at once and is confirmed when the kernel has it on disk.

import { bytesOf, make, plural, thousands } from "./dom.js";
import { keyHelp, understand, written } from "./keys.js";
import { FRAME, inSight } from "./sight.js";
import { buildTile, drawTile, paintTile, tellOf, usualSide } from "./tiles.js";
import { makeBar } from "./bar.js";
import { makeStatus } from "./status.js";
import { makeButtons } from "./buttons.js";
import { makeDetails } from "./details.js";
import { makeSurroundings } from "./surroundings.js";
import { watchWindow } from "./window.js";
import { shareKeys } from "./focus.js";
import { useMouse } from "./mouse.js";

const SILENCE_MS = 15000; // a kernel that is busy or gone for longer is worth a word
const QUIET = ["ready", "room", "draw", "dismiss"]; // what asks for nothing to be saved

function render({ model, el }) {
  const client = Math.random().toString(36).slice(2);
  let page = null; // the last "page" message
  let pixels = []; // of each tile, grey, or null
  let tiles = []; // of each tile its element
  let cursor = 0; // place on the page; one past the last after that was labelled
  let anchor = 0; // where the selection began; it reaches to the cursor
  let request = 0;
  let waiting = false; // for a page; keys struck meanwhile are kept
  let queue = [];
  let silence = null;
  let silent = false;
  let unconfirmed = new Map(); // by patch, the request that is to save its label
  let wanted = {}; // of the view, what was asked for and not answered yet

  // -- what there is on the screen ---------------------------------------------------------------------------

  const bar = makeBar(client, { arrange, draw: change, resize: (size) => draw({ size }) });
  const status = makeStatus({ dismiss: () => (status.notices.replaceChildren(), send("dismiss"), view.refit()) });
  const details = makeDetails(() => model.send({ type: "details" }));
  const grid = make("div", { className: "emc-grid", tabIndex: 0 });
  grid.setAttribute("role", "listbox");
  grid.setAttribute("aria-multiselectable", "true");
  grid.setAttribute("aria-label", "Patches of this page");
  const info = make("div", { className: "emc-info" });
  const keysPanel = make("div", { className: "emc-panel emc-help", hidden: true });
  const buttons = makeButtons({ perform: (action) => perform(action), goTo: (to) => turn(to) });
  const surroundings = makeSurroundings(buttons.around, {
    ask: (type, index) => model.send({ type, client, index }),
    fail: (reason) => status.error(reason),
  });
  const stage = make("div", { className: "emc-stage" }, grid, surroundings.panel, keysPanel);

  const root = make(
    "div",
    { className: "emcurate-labeling emc-unborn" },
    bar.node,
    status.progress,
    status.notices,
    stage,
    make("div", { className: "emc-lines" }, info, status.message),
    buttons.node,
    details.node,
  );
  for (const name in FRAME) root.style.setProperty(`--${name}`, `${FRAME[name]}px`);
  // Where nothing answers, such as in a notebook opened without its kernel, this is all there is.
  const placeholder = make("p", { className: "emc-empty" }, "Run this cell to label.");
  grid.append(placeholder);
  el.append(root);

  // -- talking to the kernel ---------------------------------------------------------------------------------

  function send(type, content = {}) {
    request += 1;
    model.send({ type, client, request, cursor: page?.tiles[Math.min(cursor, tiles.length - 1)]?.index, ...content });
    if (!QUIET.includes(type)) status.setSaved("saving …");
    clearTimeout(silence);
    silence = setTimeout(fallSilent, SILENCE_MS);
  }

  function fallSilent() {
    silent = true;
    status.setSaved("not confirmed", true);
    status.error("The kernel does not answer. It may be busy or stopped; only what it has confirmed is saved.");
  }

  function receive(message, buffers) {
    if (message.type === "details") return details.show(message);
    if (message.type === "where" || message.type === "surroundings") {
      return message.client === client && surroundings.receive(message, buffers?.[0]);
    }
    if (message.type === "progress") return showWork(message);
    const answers = message.client === client;
    const latest = answers && message.request === request;
    if (latest) {
      clearTimeout(silence);
      wanted = {};
    }
    if (silent && answers) {
      silent = false;
      status.clear();
    }
    if (answers) for (const [index, asked] of unconfirmed) if (asked <= message.request) unconfirmed.delete(index);
    if (message.type === "page") showPage(message, buffers ?? []);
    // An answer to an older request knows less than what is on the screen.
    else if (page && (!answers || latest)) showLabels(message, latest);
    status.show(message);
    buttons.setUndo(message.undo);
    details.refresh();
    // From here on all is as the kernel says.
    if (latest || message.unsaved) {
      const lost = message.unsaved && `${plural(message.unsaved, "label")} not saved`;
      status.setSaved(lost || "all labels saved", Boolean(lost));
    }
    if (message.error) status.error(message.error);
    else if (latest && message.note) status.note(message.note);
    if (latest) release(message.type === "page");
  }

  function showLabels(message, latest) {
    for (const tile of page.tiles) {
      tile.label = message.labels[tile.index] ?? tile.label;
      tile.said = message.said[tile.index] ?? {};
    }
    // After an undo, and to what could not be saved.
    if (latest && message.moved) moveTo(Math.max(page.tiles.findIndex((tile) => tile.index === message.cursor), 0));
    paint();
  }

  function showWork({ done, total, client: whose }) {
    if (whose !== client) return;
    status.setSaved(`looking at patches: ${thousands(done)} of ${thousands(total)}`);
    clearTimeout(silence);
    silence = setTimeout(fallSilent, SILENCE_MS);
  }

  function release(newPage) {
    waiting = false;
    grid.classList.remove("emc-waiting");
    const struck = queue;
    queue = [];
    for (const action of struck) {
      // One key may label what it was struck for before it was drawn; a whole page that nobody has seen it may not.
      const sweeping = ["rest", "accept"].includes(action.type);
      if (newPage && sweeping) status.note("The page came after that key: look at it and press again.");
      else perform(action);
    }
  }

  // Waits for the kernel's answer before the next key counts, since the answer may be another page.
  function act(type, content = {}) {
    if (!page) return;
    if (type !== "room") status.clear();
    waiting = true;
    grid.classList.add("emc-waiting");
    send(type, content);
  }

  // With `labelled`, only if what was just labelled could be saved.
  function turn(to, labelled = false) {
    if (to >= page.pages) return status.note("This is the last page.");
    if (to < 0) return status.note("This is the first page.");
    act("turn", { page: to, labelled });
  }

  function arrange(changes) {
    if (!page) return;
    Object.assign(wanted, changes);
    act("arrange", { changes, room: view.room() });
  }

  function change(changes) {
    if (!page) return;
    Object.assign(wanted, changes);
    draw(changes);
    send("draw", { changes });
  }

  // -- labels ------------------------------------------------------------------------------------------------

  const range = () => [Math.min(anchor, cursor), Math.max(anchor, cursor)];

  function chosen() {
    const [first, last] = range();
    return page.tiles.slice(first, last + 1);
  }

  const cannot = (tile) => `This patch cannot be labelled: ${tile.problem}`;

  function sendLabels(type, targets, content) {
    send(type, content);
    for (const tile of targets) unconfirmed.set(tile.index, request);
    paint();
  }

  function mark(name) {
    const picked = chosen();
    if (!picked.length) return sayEnd();
    const targets = picked.filter((tile) => name === "none" || !tile.problem);
    status.clear();
    if (!targets.length) status.error(cannot(picked[0]));
    for (const tile of targets) tile.label = name;
    const next = range()[1] + 1;
    // Of several that were selected the outcome is to be seen.
    const turns = next === page.tiles.length && picked.length === 1 && page.view.turn && page.page + 1 < page.pages;
    const left = page.tiles.filter((tile) => tile.label === "none" && !tile.problem).length;
    cursor = anchor = next; // one past the last, where no key labels anything, until the page is turned
    reveal();
    sendLabels("label", targets, { indices: targets.map((tile) => tile.index), label: name });
    if (turns) {
      const number = page.page + 1;
      turn(number, true);
      const without = `${plural(left, "patch")} without a label`;
      if (left) status.note(`Page ${thousands(number)} was left with ${without}; Page Up goes back.`);
    } else if (next === page.tiles.length) sayEnd();
    paint();
  }

  function sayEnd() {
    if (!page.tiles.length) return;
    const more = page.page + 1 < page.pages;
    const name = written(page.keys[more ? "next_page" : "next_unlabelled"]);
    const what = more ? "turns it" : "jumps to the next patch without a label";
    status.note(`End of the ${more ? "page" : "last page"}: ${name} ${what}, ← goes back.`);
  }

  function toggle() {
    const picked = chosen();
    if (!picked.length) return sayEnd();
    const targets = picked.filter((tile) => !tile.problem);
    status.clear();
    if (!targets.length) return status.error(cannot(picked[0]));
    for (const tile of targets) tile.label = tile.label === "informative" ? "uninformative" : "informative";
    sendLabels("toggle", targets, { indices: targets.map((tile) => tile.index) });
  }

  // Returns the patches without a label, of those that can be seen, and says how many cannot.
  function unlabelledInSight() {
    const seen = inSight(root, grid, tiles, [surroundings.panel, keysPanel]);
    const open = (tile) => tile.label === "none" && !tile.problem;
    const hidden = page.tiles.filter((tile, place) => open(tile) && !seen[place]).length;
    status.clear();
    if (hidden) status.note(`${plural(hidden, "patch")} of this page: out of sight and left as they are.`);
    return page.tiles.filter((tile, place) => open(tile) && seen[place]);
  }

  function markRest(name) {
    const targets = unlabelledInSight();
    if (!targets.length) return;
    for (const tile of targets) tile.label = name;
    sendLabels("rest", targets, { label: name, seen: targets.map((tile) => tile.index) });
  }

  function accept() {
    if (!page.scored) return status.error("There are no scores of a model: name them in SCORES.");
    const targets = unlabelledInSight().filter((tile) => tile.model);
    if (!targets.length) return;
    for (const tile of targets) tile.label = tile.model;
    sendLabels("accept", targets, { seen: targets.map((tile) => tile.index) });
  }

  // -- moving ------------------------------------------------------------------------------------------------

  function moveTo(place, extend = false) {
    if (!page?.tiles.length) return;
    cursor = Math.min(Math.max(place, 0), page.tiles.length - 1);
    anchor = extend ? Math.min(anchor, page.tiles.length - 1) : cursor;
    reveal();
    paint();
  }

  const reveal = () => tiles[cursor]?.scrollIntoView({ block: "nearest", inline: "nearest" });

  function step({ by, extend }) {
    const there = cursor + by;
    // A step up or down that leaves the grid stays where it is rather than change the column.
    const down = Math.abs(by) === page.view.columns && page.view.columns > 1;
    if (!down || (there >= 0 && there < page.tiles.length)) moveTo(there, extend);
  }

  function perform(action) {
    if (!page) return;
    if (waiting) return void queue.push(action);
    switch (action.type) {
      case "step": return step(action);
      case "mark": return mark(action.name);
      case "rest": return markRest(action.name);
      case "accept": return accept();
      case "toggle": return toggle();
      case "turn": return turn(page.page + action.by);
      case "undo": return act("undo");
      case "next_unlabelled": return act("next");
      case "contrast": return bar.toggleStretch();
      case "surroundings": return surroundings.toggle();
      case "full_screen": return view.toggleFullScreen();
      case "help": return void (keysPanel.hidden = !keysPanel.hidden);
      case "close": return void (keysPanel.hidden = true, surroundings.close());
    }
  }

  // -- drawing -----------------------------------------------------------------------------------------------

  function showPage(message, buffers) {
    const first = !page;
    page = message;
    root.classList.remove("emc-unborn");
    Object.assign(page.view, wanted); // an answer to an older request must not turn a switch back
    pixels = page.tiles.map((tile) => (tile.buffer < 0 ? null : bytesOf(buffers[tile.buffer])));
    bar.show(page);
    buttons.show(page);
    keysPanel.replaceChildren(keyHelp(page.keys, page.help));
    tiles = page.tiles.map((tile, place) => buildTile(tile, `emcurate-${client}-${place}`));
    grid.replaceChildren(...tiles);
    if (!tiles.length) grid.append(make("p", { className: "emc-empty" }, "No patch matches these filters."));
    grid.scrollTo(0, 0);
    cursor = anchor = Math.max(page.tiles.findIndex((tile) => tile.index === page.cursor), 0);
    draw({});
    reveal();
    paint();
    if (first) view.refit(); // the bars are as high as they are only now
    if (first && page.fresh) keys.takeKeysAtFirst();
  }

  // Sizes and contrast: what needs no word from the kernel.
  function draw(changes) {
    if (!page) return;
    if ("size" in changes) page.size = changes.size;
    Object.assign(page.view, changes);
    grid.style.setProperty("--columns", page.view.columns);
    grid.style.setProperty("--size", `${page.size}px`);
    const how = { size: page.size, usual: usualSide(page), stretch: page.view.stretch };
    page.tiles.forEach((tile, place) => drawTile(tiles[place], tile, pixels[place], how));
  }

  function paint() {
    if (!page) return;
    const [first, last] = range();
    page.tiles.forEach((tile, place) => {
      const selected = place >= first && place <= last;
      const ranged = first !== last;
      const waits = unconfirmed.has(tile.index);
      paintTile(tiles[place], tile, { atCursor: place === cursor, selected, ranged, unconfirmed: waits });
    });
    if (tiles[cursor]) grid.setAttribute("aria-activedescendant", tiles[cursor].id);
    else grid.removeAttribute("aria-activedescendant");
    showInfo(cursor);
    surroundings.follow(page.tiles[cursor] ?? null, (cursor % page.view.columns) * 2 >= page.view.columns);
  }

  function showInfo(place) {
    const tile = page.tiles[place];
    if (!tile) return info.replaceChildren(" ");
    info.replaceChildren(...tellOf(tile));
    info.title = tile.path;
  }

  // -- beginning and end -------------------------------------------------------------------------------------

  const asked = (event) => (page ? understand(event, page.keys, page.view.columns) : null);
  const keys = shareKeys(root, grid, { asked, perform });
  useMouse(grid, {
    placeOf: (tile) => tiles.indexOf(tile),
    moveTo,
    point: (place) => page && showInfo(place >= 0 ? place : cursor),
    toggle: () => perform({ type: "toggle" }),
    isWaiting: () => waiting,
    takeKeys: keys.takeKeys,
  });
  const tell = (room) => {
    if (!page) send("ready", { room });
    else if (page.view.fit) act("room", { room });
  };
  const view = watchWindow(el, root, grid, { tell, takeKeys: keys.takeKeys });
  model.on("msg:custom", receive);
  return () => {
    model.off("msg:custom", receive);
    clearTimeout(silence);
    for (const part of [details, surroundings, keys, view]) part.stop();
  };
}

export default { render };
