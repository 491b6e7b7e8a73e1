// Elements of the page, and how numbers are written.

export function make(tag, properties = {}, ...children) {
  const { dataset, style, ...others } = properties;
  const node = Object.assign(document.createElement(tag), others);
  Object.assign(node.dataset, dataset);
  for (const [name, value] of Object.entries(style ?? {})) node.style.setProperty(name, value);
  node.append(...children);
  return node;
}

export function select(label, title, options, onchange) {
  const node = make("select", { title, onchange: () => onchange(node.value) });
  fill(node, options, "");
  return { node, field: make("label", { title }, label, node) };
}

// Options are [value, text] or [value, text, why it cannot be chosen].
export function fill(node, options, value) {
  const made = options.map(([name, text, closed]) =>
    make("option", { value: name, disabled: Boolean(closed) }, closed ? `${text} (${closed})` : text),
  );
  node.replaceChildren(...made);
  node.value = value;
}

export function number(label, title, onchange) {
  const node = make("input", { type: "number", min: 1, max: 24, title });
  node.onchange = () => onchange(Math.min(Math.max(Math.round(Number(node.value)) || 1, 1), 24));
  return { node, field: make("label", { title }, label, node) };
}

export function check(label, title, onchange) {
  const node = make("input", { type: "checkbox", onchange: () => onchange(node.checked) });
  return { node, field: make("label", { title }, node, label) };
}

export function button(content, title, action, className = "") {
  const node = make("button", { type: "button", title, className, onclick: action });
  node.append(...[content].flat());
  return node;
}

export const thousands = (count) => count.toLocaleString("en-GB");

export function plural(count, noun) {
  const ending = noun.endsWith("ch") ? "es" : "s";
  return `${thousands(count)} ${noun}${count === 1 ? "" : ending}`;
}

export function duration(minutes) {
  if (minutes < 1) return "under a minute";
  const hours = Math.floor(minutes / 60);
  return hours ? `${hours} h ${Math.round(minutes % 60)} min` : `${Math.round(minutes)} min`;
}

// What the kernel sends beside a message comes as a view of a larger buffer, or as one of its own.
export const bytesOf = (buffer) =>
  new Uint8Array(buffer.buffer ?? buffer, buffer.byteOffset ?? 0, buffer.byteLength);
