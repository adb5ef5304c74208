"use strict";
// Text from the data is only ever written as text, never as markup.
const D = JSON.parse(document.getElementById("data").textContent);
const $ = id => document.getElementById(id);
const short = value => value === null || value === undefined ? "-"
  : typeof value !== "number" ? String(value)
  : Number.isInteger(value) ? String(value) : value.toPrecision(4);

function add(parent, node, attributes, text) {
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return parent.appendChild(node);
}
const html = (parent, name, attributes = {}, text) => add(parent, document.createElement(name), attributes, text);
const draw = (parent, name, attributes = {}, text) =>
  add(parent, document.createElementNS("http://www.w3.org/2000/svg", name), attributes, text);

function clear(id, width, height) {
  const svg = $(id);
  svg.replaceChildren();
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  return svg;
}

function tip(event, text) {
  const box = $("tip");
  box.style.display = text ? "block" : "none";
  if (!text) return;
  box.textContent = text;
  box.style.left = Math.max(0, Math.min(event.clientX + 12, innerWidth - box.offsetWidth - 8)) + "px";
  const below = event.clientY + 16;
  box.style.top = (below + box.offsetHeight > innerHeight ? event.clientY - box.offsetHeight - 8 : below) + "px";
}
function hovers(node, text) {
  for (const type of ["pointermove", "pointerdown"]) node.addEventListener(type, event => tip(event, text(event)));
  leaves(node, event => tip(event, ""));
  return node;
}
// A finger that is lifted leaves too, but what it has shown stays until the next tap.
function leaves(node, action) {
  node.addEventListener("pointerleave", event => { if (event.pointerType !== "touch") action(event); });
}
addEventListener("pointerdown", event => tip(event, ""), true);

const OPERATORS = {"<": (a, b) => a < b, ">": (a, b) => a > b, "<=": (a, b) => a <= b,
  ">=": (a, b) => a >= b, "=": (a, b) => a === b};

// Predicates of a filter such as `step > 500, loss < 2`; other words search the text of a row.
function parseFilter(text, columns) {
  return text.split(",").map(part => part.trim()).filter(Boolean).map(part => {
    const [, words, operator, value] = part.match(/^(.+?)\s*(<=|>=|<|>|=)\s*(.+)$/) ?? [];
    const name = words?.trim().replaceAll(" ", "_");
    if (!columns.includes(name)) return row => columns.concat("run").some(column => short(row[column]).includes(part));
    const right = Number.isNaN(Number(value)) ? value : Number(value);
    return row => name in row && row[name] !== null && OPERATORS[operator](row[name], right);
  });
}

// A table whose rows are sorted by clicking on a column and filtered by a text field.
// `extra(cells, row)` may add cells, `titles` names their columns.
function sortable(table, filter, count, columns, rows, extra = () => {}, titles = []) {
  const view = {by: null, up: true};
  const head = html(html(table, "thead"), "tr"), body = html(table, "tbody");
  const isText = name => rows.some(row => typeof row[name] === "string");
  for (const title of titles) html(head, "th", {scope: "col", class: "text"}, title);
  const headers = columns.map(name => {
    const th = html(head, "th", {scope: "col", class: isText(name) ? "text" : ""});
    html(th, "button", {}, name.replaceAll("_", " ")).onclick = () => {
      view.up = view.by === name ? !view.up : true;
      view.by = name;
      show();
    };
    return th;
  });
  const lines = new Map(rows.map(row => {
    const line = document.createElement("tr");
    extra(line, row);
    for (const name of columns) html(line, "td", {class: isText(name) ? "text" : ""}, short(row[name]));
    return [row, line];
  }));
  function show() {
    const holds = parseFilter(filter.value, columns);
    const shown = rows.filter(row => holds.every(test => test(row)));
    if (view.by !== null) shown.sort((a, b) => {
      const [x, y] = [a[view.by] ?? -Infinity, b[view.by] ?? -Infinity];
      return (view.up ? 1 : -1) * (x < y ? -1 : x > y ? 1 : 0);
    });
    columns.forEach((name, n) => headers[n].setAttribute("aria-sort",
      view.by !== name ? "none" : view.up ? "ascending" : "descending"));
    headers.forEach((th, n) => { th.firstChild.textContent = columns[n].replaceAll("_", " ")
      + (view.by === columns[n] ? (view.up ? " ↑" : " ↓") : ""); });
    body.replaceChildren(...shown.map(row => lines.get(row)));
    count.textContent = `${shown.length} of ${rows.length} rows` + (shown.length ? "" : ": for example, step > 500");
    table.dispatchEvent(new CustomEvent("shown", {detail: shown}));
  }
  filter.oninput = show;
  show();
  return lines;
}
