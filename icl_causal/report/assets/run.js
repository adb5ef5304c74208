const {S, T, heads: H, steps, prompts} = D, K = steps.length, M = T * (T + 1) / 2;
const P = prompts ? prompts.tokens.length : 0, H2 = prompts ? prompts.last_heads : 0;
const bytes = text => Uint8Array.from(atob(text), c => c.charCodeAt(0));
const maps = bytes(D.maps);
const model = prompts && bytes(prompts.model), first = prompts && bytes(prompts.first), last = prompts && bytes(prompts.last);
const target = D.target, isEdge = new Set(D.edges.map(([i, j]) => i * T + j));
const view = {k: K - 1, head: 0, prompt: 0, own: false, row: null};
const share = a => a.toFixed(2).replace(/^0\./, ".");
const colour = name => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

// Attention: of layer 1 from i to j, on average or in one prompt; of the last layer to j, the mean over its heads.
const entry = (i, j) => i * (i + 1) / 2 + j;
const mean1 = (k, h, i, j) => maps[(k * H + h) * M + entry(i, j)] / 255;
const prompt1 = (k, p, h, i, j) => first[((k * P + p) * H + h) * M + entry(i, j)] / 255;
const shown1 = (i, j) => view.own && P ? prompt1(view.k, view.prompt, view.head, i, j) : mean1(view.k, view.head, i, j);
function last1(k, p, j) {
  let sum = 0;
  for (let h = 0; h < H2; h++) sum += last[((k * P + p) * H2 + h) * T + j];
  return sum / 255 / H2;
}

const LEFT = .06, TOP = .035;  // margins of the map, in widths
function drawMap() {
  const canvas = $("map"), side = Math.round(Math.max(260, canvas.clientWidth) * (devicePixelRatio || 1));
  canvas.width = canvas.height = side;
  const g = canvas.getContext("2d"), c = (1 - LEFT - TOP) * side / T;
  g.translate(LEFT * side, TOP * side);
  g.fillStyle = colour("panel");
  for (let i = 0; i < T; i++) g.fillRect(0, i * c, (i + 1) * c, c);
  g.fillStyle = colour("blue");
  for (let i = 0; i < T; i++) for (let j = 0; j <= i; j++) {
    g.globalAlpha = shown1(i, j);
    g.fillRect(j * c, i * c, c + .5, c + .5);
  }
  g.globalAlpha = 1;
  g.strokeStyle = colour("orange");
  g.lineWidth = Math.min(2 * (devicePixelRatio || 1), c / 5);
  for (const [i, j] of D.edges) g.strokeRect(j * c, i * c, c, c);
  if (view.row !== null) {
    g.strokeStyle = colour("ink");
    g.strokeRect(0, view.row * c, (view.row + 1) * c, c);
  }
  g.fillStyle = colour("ink");
  g.font = `${Math.round(side * .024)}px system-ui, sans-serif`;
  const every = Math.ceil(T / 20);
  for (let i = 0; i < T; i += every) {
    g.textAlign = "right";
    g.textBaseline = "middle";
    g.fillText(i, -.012 * side, (i + .5) * c);
    g.textAlign = "center";
    g.textBaseline = "bottom";
    g.fillText(i, (i + .5) * c, i * c - 1);
  }
  canvas.setAttribute("aria-label", `attention of layer 1 at step ${steps[view.k]}: `
    + `${D.recovered[view.k]} of ${D.edges.length} edges recovered`);
}
function cellAt(event) {
  const box = $("map").getBoundingClientRect(), c = (1 - LEFT - TOP) * box.width / T;
  const i = Math.floor((event.clientY - box.top - TOP * box.width) / c);
  const j = Math.floor((event.clientX - box.left - LEFT * box.width) / c);
  return i >= 0 && i < T && j >= 0 && j <= i ? [i, j] : null;
}
function setRow(row) {
  if (row === view.row) return;
  view.row = row;
  drawMap();
  drawArcs();
  const order = row === null ? [] : [...Array(row + 1).keys()].sort((a, b) => shown1(row, b) - shown1(row, a)).slice(0, 3);
  $("says").textContent = row === null ? " " : `Position ${row} attends to ` + order.map(j =>
    `${j} (${share(shown1(row, j))}${isEdge.has(row * T + j) ? ", its parent" : ""})`).join(", ") + ".";
}

// Half an ellipse over the line of positions, between the tops of two circles.
const height = (i, j) => 10 + 5 * Math.sqrt(i - j - 1) * Math.min(1, 60 / T + .2);
const arc = (svg, i, j, x, y, more) => draw(svg, "path", {fill: "none",
  d: `M${x(j)} ${y - 8} A${(x(i) - x(j)) / 2} ${height(i, j)} 0 0 1 ${x(i)} ${y - 8}`, ...more});
function drawArcs() {
  const y = 14 + height(T - 1, 0), width = Math.max(440, 22 * T), x = i => 14 + i * (width - 28) / (T - 1), svg = clear("arcs", width, y + 14);
  svg.style.minWidth = T > 24 ? `${width}px` : "";
  for (const [i, j] of D.edges) arc(svg, i, j, x, y, {stroke: "var(--orange)", "stroke-width": .8, "stroke-dasharray": "1 3"});
  for (let i = 0; i < T; i++) for (let j = 0; j < i; j++) {
    const a = shown1(i, j);
    if (a <= .05 || (view.row !== null && view.row !== i)) continue;
    hovers(arc(svg, i, j, x, y, {stroke: isEdge.has(i * T + j) ? "var(--orange)" : "var(--grey)", "stroke-opacity": .2 + .8 * a,
      "stroke-width": .6 + 2.2 * a}), () => `${i} attends to ${j}: ${share(a)}${isEdge.has(i * T + j) ? ", an edge" : ""}`);
  }
  for (let i = 0; i < T; i++) {
    const node = draw(svg, "g");
    draw(node, "circle", {cx: x(i), cy: y, r: 8, fill: "var(--paper)", stroke: target.includes(i) ? "var(--blue)" : "var(--ink)",
      "stroke-width": target.includes(i) ? 2.5 : 1});
    draw(node, "text", {x: x(i), y: y + 3, "font-size": 8.5, "text-anchor": "middle"}, i);
    node.addEventListener("pointerenter", () => setRow(i));
    node.addEventListener("pointerleave", () => setRow(null));
  }
}

const nearest = step => steps.reduce((best, value, k) => Math.abs(place(value) - place(step)) < Math.abs(place(steps[best]) - place(step)) ? k : best, 0);
const place = step => Math.log2(1 + step);
function drawLoss() {
  const levels = Object.entries(D.baselines), losses = D.curve.map(point => point.loss);
  // An entropy far below the curve would flatten it: a label instead.
  const others = [...losses, ...levels.filter(([name]) => name !== "entropy").map(level => level[1])];
  const far = level => level[0] === "entropy" && Math.min(...others) - level[1] > Math.max(...others) - Math.min(...others);
  const drawn = levels.filter(level => !far(level)), all = [...losses, ...drawn.map(level => level[1])];
  const low = Math.min(...all), high = Math.max(...all), end = place(Math.max(...D.curve.map(point => point.step), 1));
  const svg = clear("loss", 470, 250), x = step => 40 + 290 * place(step) / end, y = v => 10 + 195 * (high - v) / (high - low || 1);
  let free = Infinity;
  for (const [name, v] of drawn.sort((a, b) => a[1] - b[1])) {
    draw(svg, "line", {x1: 40, x2: 332, y1: y(v), y2: y(v), stroke: "var(--line)"});
    const at = Math.min(y(v), free);
    free = at - 11;
    draw(svg, "text", {x: 338, y: at + 3, "font-size": 9.5}, `${name} ${v.toFixed(3)}`);
  }
  for (const [name, v] of levels.filter(far)) draw(svg, "text", {x: 338, y: 222, "font-size": 9.5, class: "soft"}, `${name} ${v.toFixed(3)}, below`);
  for (let n = 0; n <= 3; n++) {
    const v = low + (high - low) * n / 3;
    draw(svg, "text", {x: 35, y: y(v) + 3, "font-size": 9.5, "text-anchor": "end", class: "soft"}, v.toFixed(2));
  }
  draw(svg, "polyline", {points: D.curve.map(point => `${x(point.step)},${y(point.loss)}`).join(" "), fill: "none", stroke: "var(--blue)", "stroke-width": 1.6});
  for (const point of D.curve) draw(svg, "circle", {cx: x(point.step), cy: y(point.loss), r: 2.6, stroke: "var(--blue)", fill: point.early ? "var(--paper)" : "var(--blue)"});
  draw(svg, "line", {id: "now", y1: 6, y2: 210, stroke: "var(--orange)", "stroke-width": 1.4});
  for (let step = 1; step <= D.curve.at(-1).step; step *= 4) draw(svg, "text", {x: x(step), y: 222, "font-size": 9.5, "text-anchor": "middle", class: "soft"}, step);
  draw(svg, "text", {x: 40, y: 222, "font-size": 9.5, "text-anchor": "middle", class: "soft"}, 0);
  draw(svg, "text", {x: 185, y: 236, "font-size": 9.5, "text-anchor": "middle", class: "soft"}, "step (open circles: on part of the test set)");
  const face = draw(svg, "rect", {x: 30, y: 0, width: 310, height: 212, fill: "transparent", style: "cursor: pointer"});
  const at = event => {
    const box = face.getBoundingClientRect(), step = 2 ** (((event.clientX - box.left) / box.width * 310 - 10) / 290 * end) - 1;
    return D.curve.reduce((a, b) => Math.abs(place(b.step) - place(step)) < Math.abs(place(a.step) - place(step)) ? b : a);
  };
  hovers(face, event => {
    const point = at(event), base = "edge posterior" in D.baselines ? `, ${(point.loss - D.baselines["edge posterior"]).toFixed(4)} above the edge posterior` : "";
    const k = steps.indexOf(point.step), edges = k < 0 ? "" : `\n${D.recovered[k]} of ${D.edges.length} edges recovered`;
    return `step ${point.step}: loss ${point.loss.toFixed(4)}${point.early ? " on part of the test set" : base}${edges}`;
  });
  face.addEventListener("click", event => set({k: nearest(at(event).step)}));
  svg.dataset.x = JSON.stringify([40, 290, end]);
}
function moveLoss() {
  const [left, width, end] = JSON.parse($("loss").dataset.x), x = left + width * place(steps[view.k]) / end;
  for (const name of ["x1", "x2"]) $("now").setAttribute(name, x);
}

const hue = s => `hsl(${s * 360 / S} 65% 70%)`;
function copies(k, p, h, i) {
  const tokens = prompts.tokens[p], copied = Array(S).fill(0);
  for (let j = 0; j <= i; j++) copied[tokens[j]] += prompt1(k, p, h, i, j);
  return copied;
}
function drawPrompt() {
  const p = view.prompt, k = view.k, tokens = prompts.tokens[p], rows = Math.min(H, 4);
  const width = Math.max(900, 34 * T + 90), x = i => 104 + i * (width - 130) / (T - 1), y = 22, under = y + 24 + 26 * rows;
  const svg = clear("tape", width, under + 96);
  svg.style.width = T > 30 ? `${width}px` : "100%";
  svg.style.minWidth = "640px";
  const label = (at, text) => draw(svg, "text", {x: 0, y: at, "font-size": 11.5, class: "soft"}, text);
  label(y + 4, "token");
  for (let h = 0; h < rows; h++) label(y + 41 + 26 * h, H > 1 ? `head ${h + 1} copies` : "copied");
  label(under + 12, `layer ${prompts.last_layer} attends`);
  for (let i = 0; i < T; i++) {
    const box = draw(svg, "rect", {x: x(i) - 13, y: y - 13, width: 26, height: 26, rx: 5, fill: hue(tokens[i]),
      stroke: target.includes(i) ? "var(--ink)" : "none", "stroke-width": 2.5});
    hovers(box, () => `position ${i}: token ${tokens[i]}${target.includes(i) ? "; the next token is drawn from its row" : ""}`);
    draw(svg, "text", {x: x(i), y: y + 5, "text-anchor": "middle", "font-size": 13, class: "token", "pointer-events": "none"}, tokens[i]);
    for (let h = 0; h < rows; h++) {
      const copied = copies(k, p, h, i), best = copied.indexOf(Math.max(...copied)), at = y + 27 + 26 * h;
      const match = D.sought[h] !== null && best === tokens[D.sought[h]];
      const small = draw(svg, "rect", {x: x(i) - 9, y: at, width: 18, height: 18, rx: 4, fill: hue(best), "fill-opacity": copied[best],
        stroke: match ? "var(--ink)" : "var(--line)", "stroke-width": match ? 1.8 : .6});
      hovers(small, () => `layer 1 copies to position ${i}:\n` + copied.map((a, s) => [a, s]).sort((a, b) => b[0] - a[0]).slice(0, 3)
        .map(([a, s]) => `  ${share(a)} of token ${s}`).join("\n"));
      draw(svg, "text", {x: x(i), y: at + 13, "text-anchor": "middle", "font-size": 10.5, "pointer-events": "none",
        ...(copied[best] > .35 ? {class: "token"} : {})}, best);
    }
    const a = last1(k, p, i), bar = draw(svg, "g");
    draw(bar, "rect", {x: x(i) - 13, y: under, width: 26, height: 80, fill: "transparent"});
    draw(bar, "rect", {x: x(i) - 9, y: under, width: 18, height: Math.max(.8, 72 * a), fill: "var(--blue)", "data-last": i});
    hovers(bar, () => `layer ${prompts.last_layer} attends to position ${i}: ${share(a)}\nwhose token is ${tokens[i]}`);
    draw(svg, "text", {x: x(i), y: under + 92, "text-anchor": "middle", "font-size": 9, class: "soft"}, i);
  }
}
function drawLaws() {
  const p = view.prompt, names = Object.keys(prompts.laws), colours = {"true law": "grey", "edge posterior": "orange", "exact posterior": "purple"};
  const truth = prompts.laws["true law"][p], series = [["model", "blue", s => model[(view.k * P + p) * S + s] / 255],
    ...names.map(name => [name, colours[name] ?? "green", s => prompts.laws[name][p][s]])];
  const loss = f => truth.reduce((sum, y, s) => y ? sum - y * Math.log(Math.max(f(s), 1 / 510)) : sum, 0);
  $("legend").replaceChildren();
  for (const [name, tone, f] of series) {
    const item = html($("legend"), "span");
    html(item, "i", {style: `background: var(--${tone})`});
    item.append(`${name}: loss ${loss(f).toFixed(2)}`);
  }
  const width = Math.max(640, S * 15 * series.length), w = (width - 20) / S, svg = clear("laws", width, 132);
  svg.style.width = S > 14 ? `${width}px` : "100%";
  svg.style.minWidth = `${Math.min(width, 640)}px`;
  for (let s = 0; s < S; s++) {
    series.forEach(([name, tone, f], n) => {
      const bar = draw(svg, "rect", {x: 10 + s * w + w * (.1 + .8 * n / series.length), y: 104 - 96 * f(s), width: w * .72 / series.length,
        height: Math.max(.8, 96 * f(s)), fill: `var(--${tone})`});
      hovers(bar, () => `${name}: token ${s} with probability ${share(f(s))}`);
    });
    draw(svg, "rect", {x: 10 + (s + .5) * w - 9, y: 109, width: 18, height: 18, rx: 4, fill: hue(s)});
    draw(svg, "text", {x: 10 + (s + .5) * w, y: 122, "text-anchor": "middle", "font-size": 11, class: "token"}, s);
  }
}

function set(change) {
  Object.assign(view, change);
  const k = view.k, attention = D.attention[k] === null ? "" : `, ${share(D.attention[k])} on parents`;
  $("time").value = k;
  $("time").setAttribute("aria-valuetext", `step ${steps[k]}`);
  $("step").textContent = `step ${steps[k]}: ${D.recovered[k]}/${D.edges.length} edges${attention}`;
  const row = view.row;
  view.row = undefined;
  setRow(row);
  moveLoss();
  if (P) { drawPrompt(); drawLaws(); }
  lines.forEach((line, of) => line.classList.toggle("now", of.step === steps[k]));
}

$("lead").append("A transformer learns to predict the next token of prompts. Each token of a prompt is drawn from a table of probabilities: ",
  `from the row that belongs to the token at ${D.parents > 1 ? "some earlier positions, its parents" : "one earlier position, its parent"}. Which position is the parent of which `
  + "is the same in all prompts. This is the causal graph. The table is new in each prompt, so the model has to estimate it from the prompt, and for that it has to know the graph. "
  + "Nobody tells it the graph: this page shows how training finds it. Move the slider, or press play.");
for (const [value, text] of [[`${D.recovered[K - 1]} of ${D.edges.length}`, "edges recovered"],
  [D.attention[K - 1] === null ? "-" : share(D.attention[K - 1]), "attention on the parent, mean"],
  [D.curve.at(-1).loss.toFixed(3), "test loss (nats)"],
  ...("edge posterior" in D.baselines ? [[(D.curve.at(-1).loss - D.baselines["edge posterior"]).toFixed(3), "above the edge posterior (nats)"]] : []),
  [String(steps[K - 1]), "steps"]]) {
  const tile = html($("tiles"), "div");
  html(tile, "b", {}, value);
  tile.append(text);
}
for (const cells of D.summary) {
  const row = html($("summary"), "tr");
  for (const cell of cells) html(row, "td", {}, cell);
}
for (const [name, text] of Object.entries(D.files)) {
  const details = html($("files"), "details");
  html(details, "summary", {}, name);
  html(details, "pre", {}, text);
}
const lines = sortable($("history"), $("filter"), $("count"), Object.keys(D.history[0]), D.history);
drawLoss();
$("time").max = K - 1;
for (let h = 0; h < H; h++) $("head").append(new Option(h + 1, h));
$("heads").hidden = H < 2;
for (let p = 0; p < P; p++) $("of").append(new Option(p + 1, p));
if (P) {  // start with the prompt that shows the most
  const matches = tokens => D.edges.filter(([i, j]) => target.some(t => tokens[t] === tokens[j])).length;
  view.prompt = prompts.tokens.reduce((best, tokens, p) => matches(tokens) > matches(prompts.tokens[best]) ? p : best, 0);
  $("of").value = view.prompt;
}
$("prompt").hidden = $("single").hidden = !P;
$("time").oninput = event => set({k: +event.target.value});
$("of").onchange = event => set({prompt: +event.target.value});
$("head").onchange = event => set({head: +event.target.value});
$("own").onchange = event => set({own: event.target.checked});
const map = hovers($("map"), event => {
  const cell = cellAt(event);
  setRow(cell && cell[0]);
  return cell ? `${cell[0]} attends to ${cell[1]}: ${share(shown1(...cell))}${isEdge.has(cell[0] * T + cell[1]) ? ", an edge" : ""}` : "";
});
map.addEventListener("pointerleave", () => setRow(null));
map.addEventListener("keydown", event => {
  const move = {ArrowDown: 1, ArrowUp: -1}[event.key];
  if (!move) return;
  event.preventDefault();
  setRow(Math.min(T - 1, Math.max(0, (view.row ?? -1) + move)));
});
map.addEventListener("blur", () => setRow(null));
let timer = null;
function play() {
  const stop = timer !== null;
  clearInterval(timer);
  timer = stop ? null : setInterval(() => view.k === K - 1 ? play() : set({k: view.k + 1}), Math.max(60, Math.min(400, 8000 / K)));
  $("play").textContent = stop ? "▶" : "❚❚";
  $("play").setAttribute("aria-label", stop ? "play the training" : "pause");
  if (!stop && view.k === K - 1) set({k: 0});
}
$("play").onclick = play;
document.addEventListener("keydown", event => {
  if (event.target.closest("input, select, button, canvas, summary, [tabindex]")) return;
  if (event.key === " ") { event.preventDefault(); play(); }
  const move = {ArrowLeft: -1, ArrowRight: 1}[event.key];
  if (move) set({k: Math.min(K - 1, Math.max(0, view.k + move))});
});
addEventListener("resize", drawMap);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawMap);
set({});
