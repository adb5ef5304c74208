const PALETTE = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c959f", "#7f7f00"];
const place = step => Math.log2(1 + step);
const view = {shown: D.rows, row: null};

// The colour of a row by a field: a palette for at most eight values, otherwise a scale by rank.
function colours(field) {
  const values = [...new Set(D.rows.map(row => row[field] ?? null))].sort((a, b) => a < b ? -1 : a > b ? 1 : 0);
  const rank = new Map(values.map((value, n) => [value, n]));
  const few = values.length <= PALETTE.length;
  const tone = n => few ? PALETTE[n] : `hsl(${250 - 210 * n / (values.length - 1)} 75% 50%)`;
  const named = few ? values : [0, .25, .5, .75, 1].map(q => values[Math.round(q * (values.length - 1))]);
  $("legend").replaceChildren();
  for (const value of named) {
    const item = html($("legend"), "span");
    html(item, "i", {style: `background: ${tone(rank.get(value))}`});
    item.append(`${field} ${short(value)}`);
  }
  return row => tone(rank.get(row[field] ?? null));
}
let tone = () => "grey";

function points(row, width, height, [low, high], end) {
  const curve = row.curves?.[$("what").value];
  if (!curve) return [];
  const steps = D.steps[curve.steps];
  return curve.values.map((value, n) => [value, steps[n]]).filter(([value]) => value !== null)
    .map(([value, step]) => [width * place(step) / end, height * (high - value) / (high - low || 1)]);
}
function range() {
  const values = view.shown.flatMap(row => row.curves?.[$("what").value]?.values ?? []).filter(value => value !== null);
  return values.length ? [values.reduce((a, b) => Math.min(a, b)), values.reduce((a, b) => Math.max(a, b))] : [0, 1];
}
const end = place(Math.max(1, ...D.steps.map(steps => steps.at(-1))));

function drawCurves() {
  const canvas = $("curves"), ratio = devicePixelRatio || 1, width = Math.min(900, document.body.clientWidth - 32), height = 300;
  canvas.style.width = `${width}px`;
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  const g = canvas.getContext("2d"), limits = range(), style = getComputedStyle(document.body);
  g.scale(ratio, ratio);
  g.font = "11px system-ui, sans-serif";
  g.fillStyle = style.color;
  for (let n = 0; n <= 3; n++) g.fillText((limits[0] + (limits[1] - limits[0]) * n / 3).toPrecision(3), 2, 270 - 255 * n / 3 + 4);
  for (let step = 1; place(step) <= end; step *= 4) g.fillText(step, 50 + (width - 70) * place(step) / end, 292);
  g.fillText("0", 48, 292);
  g.fillText("step", width - 26, 292);
  g.translate(50, 15);
  const line = (row, alpha, thick) => {
    g.globalAlpha = alpha;
    g.lineWidth = thick;
    g.strokeStyle = tone(row);
    g.beginPath();
    points(row, width - 70, 255, limits, end).forEach(([x, y]) => g.lineTo(x, y));
    g.stroke();
  };
  for (const row of view.shown) line(row, view.row ? .12 : Math.max(.15, Math.min(1, 40 / view.shown.length)), 1.2);
  if (view.row) line(view.row, 1, 2.4);
}
function spark(cell, row) {
  if (!row.curves) return;
  const svg = draw(cell, "svg", {width: 90, height: 20, viewBox: "0 -1 90 20", "aria-hidden": "true"});
  draw(svg, "polyline", {fill: "none", "stroke-width": 1.3});
}
function drawSparks() {
  const limits = range();
  lines.forEach((line, row) => {
    const curve = line.querySelector("polyline");
    if (!curve) return;
    curve.setAttribute("points", points(row, 90, 18, limits, end).map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" "));
    curve.setAttribute("stroke", tone(row));
  });
}
function redraw() {
  tone = colours($("by").value);
  drawSparks();
  drawCurves();
}

$("lead").append(`${D.rows.length} runs, of which ${D.finished} are finished. Each run has a row in the table below, and a curve. `,
  D.pages === D.finished ? "The name of a run links to its page." : "To write the pages of the runs: ");
if (D.pages < D.finished) html($("lead"), "code", {}, D.command);
for (const name of D.fields.concat("status")) $("by").append(new Option(name, name));
for (const name of D.curves) $("what").append(new Option(name.replaceAll("_", " "), name));
$("runs").addEventListener("shown", event => { view.shown = event.detail; drawCurves(); });
const lines = sortable($("runs"), $("filter"), $("count"), D.columns, D.rows, (line, row) => {
  const name = html(line, "td", {class: "text"});
  if (row.page) html(name, "a", {href: row.page}, row.run);
  else name.textContent = row.run;
  spark(html(line, "td"), row);
  line.addEventListener("pointerenter", () => { view.row = row; drawCurves(); });
  line.addEventListener("pointerleave", () => { view.row = null; drawCurves(); });
}, ["run", "curve"]);
$("by").onchange = $("what").onchange = redraw;
addEventListener("resize", drawCurves);
redraw();
