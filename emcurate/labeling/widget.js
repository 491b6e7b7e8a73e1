// Draws a labelling session and turns keys and clicks into messages; what they mean is decided in session.py.
//
// A label shows at once and is confirmed when the kernel has it on disk. Nothing here reaches outside `el`, so the
// same module runs in JupyterLab, Notebook 7 and VS Code.

const LETTERS = { informative: "I", uninformative: "U", none: "" };
const LABEL_OF_KEY = { i: "informative", u: "uninformative", n: "none" };
const SILENCE_MS = 15000; // a kernel that is busy or gone for longer is worth a word

const HELP = [
  [["←", "→", "↑", "↓"], "move"],
  [["I"], "informative"],
  [["U"], "uninformative"],
  [["N"], "no label"],
  [["Space"], "toggle"],
  [["Shift+arrows"], "select a range"],
  [["Shift+I", "Shift+U"], "mark the rest of the page"],
  [["Z"], "undo"],
  [["Enter", "PgDn"], "next page"],
  [["PgUp"], "page before"],
  [["C"], "contrast"],
];

function make(tag, properties = {}, ...children) {
  const { dataset, style, ...others } = properties;
  const node = Object.assign(document.createElement(tag), others);
  // Notebook 7 looks at keys before they get here, and leaves those alone that go to an element with this attribute;
  // it has to be the very element that has the focus.
  Object.assign(node.dataset, { lmSuppressShortcuts: "true" }, dataset);
  for (const [name, value] of Object.entries(style ?? {})) node.style.setProperty(name, value);
  node.append(...children);
  return node;
}

function select(label, options, onchange) {
  const node = make("select", { onchange: () => onchange(node.value) });
  for (const [value, text] of options) node.append(make("option", { value }, text));
  return { node, field: make("label", {}, label, node) };
}

function number(label, title, onchange) {
  const node = make("input", { type: "number", min: 1, max: 12, title });
  node.onchange = () => onchange(Math.min(Math.max(Math.round(Number(node.value)) || 1, 1), 12));
  return { node, field: make("label", { title }, label, node) };
}

const thousands = (count) => count.toLocaleString("en-GB");

function render({ model, el }) {
  const client = Math.random().toString(36).slice(2);
  let page = null; // the last "page" message
  let pixels = []; // of each tile, grey, or null
  let tiles = []; // of each tile its element
  let cursor = 0; // places on the page
  let anchor = 0; // where the selection began; it reaches to the cursor
  let request = 0;
  let waiting = false; // for a page; keys struck meanwhile are kept
  let queue = [];
  let dragging = false;
  let silence = null;

  // -- what there is on the screen ---------------------------------------------------------------------------

  const order = select("Order", [], (value) => arrange({ order: value }));
  const label = select(
    "Show",
    [["", "all labels"], ["none", "unlabelled"], ["informative", "informative"], ["uninformative", "uninformative"]],
    (value) => arrange({ label: value }),
  );
  const disagreement = select("", [], (value) => arrange({ disagreement: value }));
  const datalist = make("datalist", { id: `emcurate-datasets-${client}` });
  const dataset = make("input", { type: "search", placeholder: "all, or part of name" });
  dataset.setAttribute("list", datalist.id);
  dataset.setAttribute("aria-label", "Dataset");
  dataset.onchange = () => arrange({ dataset: dataset.value.trim() });
  const rows = number("Rows", "Rows of a page", (value) => arrange({ rows: value }));
  const columns = number("Columns", "Columns of a page", (value) => arrange({ columns: value }));
  const size = make("input", { type: "range", min: 96, max: 512, step: 16, title: "Size of a patch on the screen" });
  size.oninput = () => draw({ size: Number(size.value) });
  size.onchange = () => send("draw", { changes: { size: Number(size.value) } });
  const stretch = make("input", { type: "checkbox", onchange: () => toggleStretch() });

  const counts = { informative: make("b"), uninformative: make("b"), none: make("b") };
  const bars = { informative: make("i", { className: "emc-informative" }), uninformative: make("i", { className: "emc-uninformative" }) };
  const saved = make("span", { className: "emc-saved" });
  saved.setAttribute("role", "status");

  const grid = make("div", { className: "emc-grid", tabIndex: 0 });
  grid.setAttribute("role", "listbox");
  grid.setAttribute("aria-multiselectable", "true");
  grid.setAttribute("aria-label", "Patches of this page");
  const info = make("div", { className: "emc-info" });
  const notices = make("div", { className: "emc-notices" });
  const error = make("div", { className: "emc-error", hidden: true });
  error.setAttribute("role", "alert");

  const pageNumber = make("input", { type: "number", min: 1, title: "Page" });
  pageNumber.onchange = () => turn(Math.max(Math.round(Number(pageNumber.value)) || 1, 1) - 1);
  const pages = make("span");
  const button = (text, title, action, className = "") => {
    const node = make("button", { type: "button", title, className });
    node.append(...[text].flat());
    node.onclick = () => (action(), grid.focus());
    return node;
  };
  const badge = (name) => make("span", { className: `emc-badge emc-${name}` }, LETTERS[name]);
  const undo = button("Undo", "Take the last action back (Z)", () => act("undo"));

  const table = make("div", { className: "emc-details" });
  const details = make("details", { ontoggle: () => details.open && askForDetails() });
  details.append(make("summary", {}, "Progress by dataset, and agreement"), table);

  const root = make(
    "div",
    { className: "emcurate-labeling" },
    make(
      "div",
      { className: "emc-bar" },
      order.field,
      label.field,
      disagreement.field,
      make("label", {}, "Dataset", dataset),
      datalist,
      make(
        "div",
        { className: "emc-bar emc-drawing" },
        rows.field,
        columns.field,
        make("label", { title: size.title }, "Size", size),
        make("label", { title: "Draw each patch with its contrast stretched (C)" }, stretch, "Stretch contrast"),
      ),
    ),
    make(
      "div",
      { className: "emc-progress" },
      make("div", { className: "emc-track" }, bars.informative, bars.uninformative),
      make("span", {}, badge("informative"), counts.informative, " informative"),
      make("span", {}, badge("uninformative"), counts.uninformative, " uninformative"),
      make("span", {}, counts.none, " unlabelled"),
      saved,
    ),
    error,
    notices,
    grid,
    info,
    make(
      "div",
      { className: "emc-bar" },
      button([badge("informative"), "Informative"], "Label the selection (I)", () => mark("informative")),
      button([badge("uninformative"), "Uninformative"], "Label the selection (U)", () => mark("uninformative")),
      button("No label", "Take the selection's label away (N)", () => mark("none")),
      make("span", { className: "emc-group" }, "Rest of page:"),
      button(badge("informative"), "Mark the rest of this page as informative (Shift+I)", () => markRest("informative")),
      button(badge("uninformative"), "Mark the rest of this page as uninformative (Shift+U)", () => markRest("uninformative")),
      undo,
      make("span", { className: "emc-space" }),
      button("◀", "Page before (Page Up)", () => turn(page.page - 1)),
      make("label", {}, "Page", pageNumber),
      pages,
      button("Next page ▶", "Next page (Enter, Page Down)", () => turn(page.page + 1)),
    ),
    make(
      "div",
      { className: "emc-help" },
      ...HELP.map(([keys, text]) => make("span", {}, ...keys.map((key) => make("kbd", {}, key)), ` ${text}`)),
    ),
    details,
  );
  root.setAttribute("data-jp-suppress-context-menu", "true");
  const placeholder = make("p", { className: "emcurate-labeling-empty" }, "Run this cell to begin labelling.");
  el.append(placeholder);

  // -- messages ----------------------------------------------------------------------------------------------

  function send(type, content = {}) {
    request += 1;
    model.send({ type, client, request, cursor: page?.tiles[cursor]?.index, ...content });
    if (!["ready", "draw", "dismiss"].includes(type)) saved.textContent = "saving …";
    clearTimeout(silence);
    silence = setTimeout(() => {
      showError("The kernel does not answer. It may be busy or stopped; what it has confirmed is saved.");
    }, SILENCE_MS);
  }

  function receive(message, buffers) {
    if (message.type === "error") return showError(message.message);
    if (message.type === "details") return showDetails(message);
    if (message.client === client && message.request === request) {
      clearTimeout(silence);
      saved.textContent = "all labels saved";
    }
    if (message.type === "page") showPage(message, buffers ?? []);
    else if (page) {
      // An answer to an older request knows less than what is on the screen.
      if (message.client !== client || message.request === request) {
        for (const tile of page.tiles) tile.label = message.labels[tile.index] ?? tile.label;
        if (message.client === client && message.undone) moveTo(page.tiles.findIndex((t) => t.index === message.cursor));
        paint();
      }
    }
    showProgress(message);
    if (message.client === client && message.request === request) release();
  }

  function release() {
    waiting = false;
    grid.classList.remove("emc-waiting");
    const struck = queue;
    queue = [];
    for (const action of struck) perform(action);
  }

  // Waits for the kernel's answer before the next key counts, since the answer may be another page.
  function act(type, content = {}) {
    if (!page) return;
    clearError();
    waiting = true;
    grid.classList.add("emc-waiting");
    send(type, content);
  }

  const turn = (to) => act("turn", { page: to });
  const arrange = (changes) => (act("arrange", { changes }), grid.focus());

  // -- labels ------------------------------------------------------------------------------------------------

  const range = () => [Math.min(anchor, cursor), Math.max(anchor, cursor)];

  function chosen() {
    const [first, last] = range();
    return page.tiles.slice(first, last + 1);
  }

  function mark(name) {
    if (!page?.tiles.length) return;
    const targets = chosen().filter((tile) => name === "none" || !tile.problem);
    const skipped = chosen().find((tile) => name !== "none" && tile.problem);
    clearError();
    if (skipped && !targets.length) showError(`This patch cannot be labelled: ${skipped.problem}`);
    for (const tile of targets) tile.label = name;
    moveTo(Math.min(range()[1] + 1, page.tiles.length - 1));
    paint();
    if (targets.length) send("label", { indices: targets.map((tile) => tile.index), label: name });
  }

  function toggle() {
    if (!page?.tiles.length) return;
    const targets = chosen().filter((tile) => !tile.problem);
    for (const tile of targets) tile.label = tile.label === "informative" ? "uninformative" : "informative";
    clearError();
    paint();
    if (targets.length) send("toggle", { indices: targets.map((tile) => tile.index) });
  }

  function markRest(name) {
    if (!page?.tiles.length) return;
    for (const tile of page.tiles) if (tile.label === "none" && !tile.problem) tile.label = name;
    clearError();
    paint();
    send("rest", { label: name });
  }

  // -- moving ------------------------------------------------------------------------------------------------

  function moveTo(place, extend = false) {
    if (!page?.tiles.length) return;
    cursor = Math.min(Math.max(place, 0), page.tiles.length - 1);
    if (!extend) anchor = cursor;
    tiles[cursor].scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  // Returns what a key asks for, or null for a key that is none of ours.
  function understand(event) {
    const letter = /^[a-z]$/i.test(event.key) ? event.key : (event.code ?? "").replace(/^Key/, "");
    const key = letter.length === 1 ? letter.toLowerCase() : event.key;
    if (event.ctrlKey || event.metaKey) return key === "z" ? { type: "undo" } : null;
    if (event.altKey) return null;
    const extend = event.shiftKey;
    const across = page?.view.columns ?? 1;
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -across, ArrowDown: across };
    if (key in steps) return { type: "step", by: steps[key], extend };
    if (key in LABEL_OF_KEY) return { type: extend ? "rest" : "mark", name: LABEL_OF_KEY[key] };
    switch (event.key) {
      case " ": return { type: "toggle" };
      case "Home": return { type: "step", by: -Infinity, extend };
      case "End": return { type: "step", by: Infinity, extend };
      case "Enter": return { type: "turn", by: extend ? -1 : 1 };
      case "PageDown": return { type: "turn", by: 1 };
      case "PageUp": return { type: "turn", by: -1 };
    }
    if (key === "z") return { type: "undo" };
    if (key === "c") return { type: "stretch" };
    return null;
  }

  function perform(action) {
    if (!page) return;
    if (waiting) return void queue.push(action);
    switch (action.type) {
      case "step": {
        const there = cursor + action.by;
        // A step up or down that leaves the grid stays where it is rather than change the column.
        if (Math.abs(action.by) !== page.view.columns || (there >= 0 && there < page.tiles.length)) moveTo(there, action.extend);
        return paint();
      }
      case "mark": return mark(action.name);
      case "rest": return action.name === "none" ? undefined : markRest(action.name);
      case "toggle": return toggle();
      case "turn": return turn(page.page + action.by);
      case "undo": return act("undo");
      case "stretch": stretch.checked = !stretch.checked; return toggleStretch();
    }
  }

  root.addEventListener("keydown", (event) => {
    event.stopPropagation(); // JupyterLab and VS Code have meanings of their own for most of these keys
    if (event.target !== grid) {
      if (event.key === "Escape") grid.focus();
      return;
    }
    const action = understand(event);
    if (!action) return;
    event.preventDefault();
    // A key held down may run along the patches, but must not label or turn page after page.
    if (event.repeat && !["step", "undo"].includes(action.type)) return;
    perform(action);
  });

  const placeOf = (event) => tiles.indexOf(event.target.closest?.(".emc-tile"));

  grid.addEventListener("pointerdown", (event) => {
    const place = placeOf(event);
    if (place < 0 || event.button !== 0) return;
    event.preventDefault(); // no text selection, no dragging of pictures
    grid.focus({ preventScroll: true });
    dragging = true;
    moveTo(place, event.shiftKey);
    paint();
  });
  grid.addEventListener("pointerover", (event) => {
    const place = placeOf(event);
    if (dragging && !(event.buttons & 1)) dragging = false;
    if (dragging && place >= 0) {
      moveTo(place, true);
      paint();
    }
    showInfo(place >= 0 ? place : cursor);
  });
  grid.addEventListener("pointerup", () => (dragging = false));
  grid.addEventListener("pointerleave", () => page && showInfo(cursor));
  grid.addEventListener("dblclick", (event) => placeOf(event) >= 0 && perform({ type: "toggle" }));
  grid.addEventListener("mousedown", (event) => event.preventDefault());

  // -- drawing -----------------------------------------------------------------------------------------------

  function showPage(message, buffers) {
    page = message;
    pixels = page.tiles.map((tile) => {
      const buffer = buffers[tile.buffer];
      return buffer ? new Uint8Array(buffer.buffer ?? buffer, buffer.byteOffset ?? 0, buffer.byteLength) : null;
    });
    if (!root.isConnected) {
      placeholder.remove();
      el.append(root);
    }
    const options = [["random", "random"], ["dataset", "datasets take turns"]];
    if (page.scored) options.push(["uncertain", "model least certain"]);
    fill(order.node, options, page.view.order);
    const filters = [["", "agreed or not"]];
    if (page.scored) filters.push(["model", "model disagrees"]);
    if (page.annotators > 1) filters.push(["annotators", "annotators disagree"]);
    fill(disagreement.node, filters, page.view.disagreement);
    disagreement.field.hidden = filters.length === 1;
    label.node.value = page.view.label;
    dataset.value = page.view.dataset;
    datalist.replaceChildren(...page.datasets.map((name) => make("option", { value: name })));
    rows.node.value = page.view.rows;
    columns.node.value = page.view.columns;
    size.value = page.view.size;
    stretch.checked = page.view.stretch;
    pageNumber.value = page.page + 1;
    pageNumber.max = page.pages;
    const narrowed = page.selected < page.total ? `, ${thousands(page.selected)} of ${thousands(page.total)} patches` : "";
    pages.textContent = `of ${thousands(page.pages)}${narrowed}`;
    buildTiles();
    cursor = anchor = Math.max(page.tiles.findIndex((tile) => tile.index === page.cursor), 0);
    draw({});
    paint();
  }

  function fill(node, options, value) {
    node.replaceChildren(...options.map(([name, text]) => make("option", { value: name }, text)));
    node.value = value;
  }

  function buildTiles() {
    tiles = page.tiles.map((tile, place) => {
      const node = make("div", { className: "emc-tile", id: `emcurate-${client}-${place}`, title: describe(tile, "\n") });
      node.setAttribute("role", "option");
      if (tile.problem) {
        const text = make("div", { className: "emc-problem" }, make("b", {}, "⚠ cannot be shown"), make("span", {}, tile.problem));
        node.append(text);
      } else {
        node.append(make("canvas", { width: tile.width, height: tile.height }));
      }
      node.append(make("span", { className: "emc-badge" }), make("span", { className: "emc-caption" }, describe(tile, " · ")));
      return node;
    });
    grid.replaceChildren(...tiles);
    if (!tiles.length) grid.append(make("p", { className: "emc-empty" }, "No patch matches these filters."));
  }

  const describe = (tile, between) => `${tile.dataset}${between}${tile.place}`;

  // Sizes and contrast: what needs no word from the kernel.
  function draw(changes) {
    if (!page) return;
    Object.assign(page.view, changes);
    grid.style.setProperty("--columns", page.view.columns);
    grid.style.setProperty("--size", `${page.view.size}px`);
    // All patches of a page at one scale, so that their magnification can be compared.
    const full = Math.max(1, ...page.tiles.map((tile) => tile.reduction * Math.max(tile.width, tile.height)));
    page.tiles.forEach((tile, place) => {
      const canvas = tiles[place].querySelector("canvas");
      if (!canvas) return;
      const scale = (page.view.size / full) * tile.reduction;
      canvas.style.width = `${tile.width * scale}px`;
      canvas.style.height = `${tile.height * scale}px`;
      // Enlarged, every pixel is a sharp square; made smaller, leaving pixels out would show noise that is not there.
      canvas.style.imageRendering = scale * window.devicePixelRatio < 1 ? "auto" : "pixelated";
      if (canvas.dataset.stretch !== String(page.view.stretch)) drawPixels(canvas, tile, pixels[place]);
    });
  }

  function drawPixels(canvas, tile, grey) {
    const [low, high] = page.view.stretch ? tile.limits : [0, 255];
    const table = new Uint8ClampedArray(256);
    for (let value = 0; value < 256; value++) table[value] = high > low ? (255 * (value - low)) / (high - low) : value;
    const image = new ImageData(tile.width, tile.height);
    const opaque = new Uint32Array(image.data.buffer);
    for (let i = 0; i < grey.length; i++) opaque[i] = 0xff000000 | (table[grey[i]] * 0x010101);
    canvas.getContext("2d").putImageData(image, 0, 0);
    canvas.dataset.stretch = page.view.stretch;
  }

  function toggleStretch() {
    if (!page) return;
    draw({ stretch: stretch.checked });
    send("draw", { changes: { stretch: stretch.checked } });
    grid.focus();
  }

  function paint() {
    const [first, last] = range();
    page.tiles.forEach((tile, place) => {
      const node = tiles[place];
      const selected = place >= first && place <= last;
      node.className = `emc-tile emc-${tile.label}`;
      node.classList.toggle("emc-broken", Boolean(tile.problem));
      node.classList.toggle("emc-cursor", place === cursor);
      node.classList.toggle("emc-selected", selected && first !== last);
      node.setAttribute("aria-selected", selected);
      node.setAttribute("aria-label", `${describe(tile, ", ")}: ${tile.problem || tile.label}`);
      const badge = node.querySelector(".emc-badge");
      badge.className = `emc-badge emc-${tile.label}`;
      badge.textContent = LETTERS[tile.label];
    });
    if (tiles.length) grid.setAttribute("aria-activedescendant", tiles[cursor].id);
    showInfo(cursor);
  }

  function showInfo(place) {
    const tile = page.tiles[place];
    if (!tile) return info.replaceChildren();
    const score = tile.score === null ? "" : ` · model ${tile.score.toFixed(2)}`;
    const reduced = tile.reduction > 1 ? ` · drawn at 1/${tile.reduction}` : "";
    const dimensions = tile.problem ? "" : ` · ${tile.width * tile.reduction} × ${tile.height * tile.reduction} pixels`;
    info.replaceChildren(
      make("b", {}, tile.dataset),
      ` · ${tile.place}${dimensions}${reduced}${score} · `,
      make("b", {}, tile.problem ? `cannot be labelled (${tile.problem})` : tile.label === "none" ? "unlabelled" : tile.label),
    );
    info.title = tile.path;
  }

  function showProgress(message) {
    const total = Math.max(Object.values(message.counts).reduce((a, b) => a + b), 1);
    for (const name in counts) counts[name].textContent = thousands(message.counts[name]);
    for (const name in bars) bars[name].style.width = `${(100 * message.counts[name]) / total}%`;
    undo.disabled = message.undo === 0;
    undo.textContent = message.undo ? `Undo (${thousands(message.undo)})` : "Undo";
    notices.replaceChildren(...message.notices.map((text) => make("p", {}, text)));
    if (message.notices.length) {
      notices.append(button("Dismiss", "Hide these notices", () => (notices.replaceChildren(), send("dismiss"))));
    }
    if (details.open && message.type !== "page") refreshDetails();
  }

  const askForDetails = () => model.send({ type: "details" });

  let refresh = null;
  function refreshDetails() {
    clearTimeout(refresh);
    // Not after each key of a quick typist.
    refresh = setTimeout(askForDetails, 400);
  }

  function showDetails({ rows, more, agreement }) {
    const cells = (tag, values) => make("tr", {}, ...values.map((value) => make(tag, {}, String(value))));
    const datasets = make(
      "table",
      {},
      cells("th", ["Dataset", "Informative", "Uninformative", "Unlabelled", "Patches"]),
      ...rows.map((row) =>
        cells("td", [row.name, ...[row.informative, row.uninformative, row.none, row.total].map(thousands)]),
      ),
    );
    const pairs = make(
      "table",
      {},
      cells("th", ["Annotators", "Both labelled", "Same label", "Cohen's κ"]),
      ...agreement.map((pair) =>
        cells("td", [
          `${pair.first || "(no name)"}, ${pair.second || "(no name)"}`,
          thousands(pair.both),
          pair.both ? `${((100 * pair.same) / pair.both).toFixed(1)} %` : "–",
          pair.kappa === null ? "–" : pair.kappa.toFixed(2),
        ]),
      ),
    );
    table.replaceChildren(make("div", { className: "emc-scroll" }, datasets));
    if (more) table.append(make("p", {}, `and ${thousands(more)} smaller datasets`));
    table.append(
      agreement.length
        ? pairs
        : make("p", {}, "Agreement is shown once two people have labelled this list, each under a name of their own."),
    );
  }

  function showError(text) {
    error.hidden = false;
    error.textContent = text;
  }

  function clearError() {
    error.hidden = true;
  }

  // -- beginning and end -------------------------------------------------------------------------------------

  model.on("msg:custom", receive);
  send("ready");
  return () => {
    model.off("msg:custom", receive);
    clearTimeout(silence);
    clearTimeout(refresh);
  };
}

export default { render };
