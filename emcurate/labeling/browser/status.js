// How far the work is, whether it is saved, and what there is to say: the lines above and below the grid.

import { button, duration, make, thousands } from "./dom.js";
import { LETTERS } from "./keys.js";

const BARS = ["informative", "uninformative", "unsure"];

export const badge = (name) => make("span", { className: `emc-badge emc-${name}` }, LETTERS[name]);

export function makeStatus({ dismiss }) {
  const counts = Object.fromEntries([...BARS, "none"].map((name) => [name, make("b")]));
  const bars = Object.fromEntries(BARS.map((name) => [name, make("i", { className: `emc-${name}` })]));
  const pace = make("span", { className: "emc-pace" });
  const saved = make("span", { className: "emc-saved" });
  saved.setAttribute("role", "status");
  const progress = make(
    "div",
    { className: "emc-progress" },
    make("div", { className: "emc-track" }, ...Object.values(bars)),
    ...BARS.map((name) => make("span", {}, badge(name), counts[name], ` ${name}`)),
    make("span", {}, counts.none, " unlabelled"),
    pace,
    saved,
  );
  const notices = make("div", { className: "emc-notices" });
  const message = make("div", { className: "emc-message" });
  message.setAttribute("role", "alert");

  function show(answer) {
    const total = Math.max(Object.values(answer.counts).reduce((a, b) => a + b), 1);
    for (const name in counts) counts[name].textContent = thousands(answer.counts[name]);
    for (const name in bars) bars[name].style.width = `${(100 * answer.counts[name]) / total}%`;
    const left = answer.counts.none;
    const rate = answer.pace;
    const speed = rate ? `${Math.round(rate)} a minute, ${duration(left / rate)} for the rest` : "";
    pace.textContent = left ? speed : "all labelled";
    pace.title = "Of the last minutes of labelling; pauses do not count";
    notices.replaceChildren(...answer.notices.map((text) => make("p", {}, text)));
    if (answer.notices.length) notices.append(button("Dismiss", "Hide these notices", dismiss));
  }

  function say(text, kind = "") {
    message.textContent = message.title = text;
    message.className = `emc-message ${kind}`;
  }

  return {
    progress,
    notices,
    message,
    show,
    // What stands here is never at odds with what is said of errors: both come from one place in widget.js.
    setSaved: (text, failed = false) => {
      saved.textContent = text;
      saved.classList.toggle("emc-failed", failed);
    },
    note: (text) => say(text),
    error: (text) => say(text, "emc-error"),
    clear: () => say(""),
  };
}
