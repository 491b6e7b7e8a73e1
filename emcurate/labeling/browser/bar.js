// The bar above the grid: which patches are shown, in which order, and how.

import { check, fill, make, number, select } from "./dom.js";

export function makeBar(client, { arrange, draw, resize }) {
  const order = select("Order", "In which order patches come", [], (value) => arrange({ order: value }));
  const label = select("Show", "Only patches of one label", [], (value) => arrange({ label: value }));
  const differing = "Only patches on which opinions differ";
  const disagreement = select("", differing, [], (value) => arrange({ disagreement: value }));
  disagreement.node.setAttribute("aria-label", "Disagreement");
  const datalist = make("datalist", { id: `emcurate-datasets-${client}` });
  const dataset = make("input", { type: "search", placeholder: "dataset: all" });
  dataset.title = "Only this dataset, or those whose name holds this";
  dataset.setAttribute("list", datalist.id);
  dataset.setAttribute("aria-label", "Dataset");
  dataset.onchange = () => arrange({ dataset: dataset.value.trim() });

  const size = make("input", { type: "range", min: 64, max: 640, step: 16 });
  size.title = "Size of a patch on the screen, at most";
  size.oninput = () => resize(Number(size.value));
  size.onchange = () => arrange({ size: Number(size.value) });
  const fitting = "As many rows and columns as the window has room for";
  const fit = check("Fit window", fitting, (value) => arrange({ fit: value }));
  const rows = number("Rows", "Rows of a page", (value) => arrange({ rows: value }));
  const columns = number("Columns", "Columns of a page", (value) => arrange({ columns: value }));
  const turn = check("Turn page", "Turn the page when its last patch is labelled", (value) => draw({ turn: value }));
  const stretch = check("Contrast", "Draw each patch with its contrast stretched", (value) => draw({ stretch: value }));

  const node = make(
    "div",
    { className: "emc-bar" },
    order.field,
    label.field,
    disagreement.field,
    dataset,
    datalist,
    make(
      "div",
      { className: "emc-bar emc-drawing" },
      make("label", { title: size.title }, "Size", size),
      fit.field,
      rows.field,
      columns.field,
      turn.field,
      stretch.field,
    ),
  );

  function show(page) {
    const { view } = page;
    const unscored = page.scored ? "" : "needs SCORES";
    const orders = [["random", "random"], ["dataset", "datasets take turns"], ["similar", "alike side by side"]];
    const diverse = ["diverse", "all structures in turn", page.ranked ? "" : "needs DIVERSE"];
    fill(order.node, [...orders, ["uncertain", "model least certain", unscored], diverse], view.order);
    const labels = ["informative", "uninformative", "unsure"].map((name) => [name, name]);
    fill(label.node, [["", "all labels"], ["none", "unlabelled"], ...labels], view.label);
    const people = ["annotators", "annotators disagree", page.alone];
    fill(disagreement.node, [["", "agreed or not"], people, ["model", "model disagrees", unscored]], view.disagreement);
    if (document.activeElement !== dataset) dataset.value = view.dataset; // somebody may be writing there
    datalist.replaceChildren(...page.datasets.map((name) => make("option", { value: name })));
    rows.node.value = view.rows;
    columns.node.value = view.columns;
    rows.field.hidden = columns.field.hidden = view.fit;
    size.value = view.size;
    fit.node.checked = view.fit;
    turn.node.checked = view.turn;
    stretch.node.checked = view.stretch;
  }

  return { node, show, toggleStretch: () => stretch.node.click() };
}
