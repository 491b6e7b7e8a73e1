// Progress by dataset, and how far annotators agree: below everything, and only while it is open.

import { make, plural, thousands } from "./dom.js";

export function makeDetails(ask) {
  const content = make("div", { className: "emc-details" });
  const node = make("details", { ontoggle: () => node.open && ask() });
  node.append(make("summary", {}, "Progress by dataset, and agreement"), content);
  let timer = null;

  const row = (tag, values) => make("tr", {}, ...values.map((value) => make(tag, {}, String(value))));

  function show({ rows, more, agreement }) {
    const labels = ["informative", "uninformative", "unsure", "none", "total"];
    const datasets = make(
      "table",
      {},
      row("th", ["Dataset", "Informative", "Uninformative", "Unsure", "Unlabelled", "Patches"]),
      ...rows.map((counts) => row("td", [counts.name, ...labels.map((name) => thousands(counts[name]))])),
    );
    const pairs = make(
      "table",
      {},
      row("th", ["Annotators", "Both decided", "Same label", "Cohen's κ"]),
      ...agreement.map((pair) =>
        row("td", [
          `${pair.first || "(no name)"}, ${pair.second || "(no name)"}`,
          thousands(pair.both),
          pair.both ? `${((100 * pair.same) / pair.both).toFixed(1)} %` : "–",
          pair.kappa === null ? "–" : pair.kappa.toFixed(2),
        ]),
      ),
    );
    content.replaceChildren(make("div", { className: "emc-scroll" }, datasets));
    if (more) content.append(make("p", {}, `and ${plural(more, "smaller dataset")}`));
    const alone = "Agreement is shown once two people have labelled this list, each under a name of their own.";
    content.append(agreement.length ? pairs : make("p", {}, alone));
  }

  return {
    node,
    content,
    show,
    refresh: () => {
      clearTimeout(timer);
      // Not after each key of a quick typist.
      if (node.open) timer = setTimeout(ask, 400);
    },
    stop: () => clearTimeout(timer),
  };
}
