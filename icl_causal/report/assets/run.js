const {S, T, heads: H, steps, prompts} = D, K = steps.length, M = T * (T + 1) / 2;
const P = prompts ? prompts.tokens.length : 0, H2 = prompts ? prompts.last_heads : 0;
const bytes = text => Uint8Array.from(atob(text), c => c.charCodeAt(0));
const unpacked = text => D.levels > 255 ? new Uint16Array(bytes(text).buffer) : bytes(text);
const maps = unpacked(D.maps);
const [model, first, last] = prompts ? ["model", "first", "last"].map(name => unpacked(prompts[name])) : [];
const target = D.target, isEdge = new Set(D.edges.map(([i, j]) => i * T + j));
const view = {k: K - 1, head: 0, prompt: 0, own: false, row: null};
const share = a => a.toFixed(2).replace(/^0\./, ".");
const colour = name => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

// Attention: of layer 1 from i to j, on average or in one prompt; of the last layer to j, the mean over its heads.
const entry = (i, j) => i * (i + 1) / 2 + j;
const mean1 = (k, h, i, j) => maps[(k * H + h) * M + entry(i, j)] / D.levels;
const prompt1 = (k, p, h, i, j) => first[((k * P + p) * H + h) * M + entry(i, j)] / D.levels;
const shown1 = (i, j) => view.own && P ? prompt1(view.k, view.prompt, view.head, i, j) : mean1(view.k, view.head, i, j);
function last1(k, p, j) {
  let sum = 0;
  for (let h = 0; h < H2; h++) sum += last[((k * P + p) * H2 + h) * T + j];
  return sum / D.levels / H2;
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
  const order = row === null ? [] : [...Array(row + 1).keys()].sort((a, b) => shown1(row, b) - shown1(row, a)).slice(0, 3)
    .filter((j, n) => !n || shown1(row, j) > .005);
  $("says").textContent = row === null ? " " : `Position ${row} attends to ` + order.map(j =>
    `${j} (${share(shown1(row, j))}${isEdge.has(row * T + j) ? ", its parent" : ""})`).join(", ") + ".";
}

// Half an ellipse over the line of positions, between the tops of two circles. Position T is the predicted token.
const height = (i, j) => 12 + 9 * Math.sqrt(i - j - 1) * Math.min(1, 60 / T + .2);
const arc = (svg, i, j, x, y, more) => draw(svg, "path", {fill: "none",
  d: `M${x(j)} ${y - 8} A${(x(i) - x(j)) / 2} ${height(i, j)} 0 0 1 ${x(i)} ${y - 8}`, ...more});
function drawArcs() {
  const y = 14 + height(T, 0), width = Math.max(440, 22 * (T + 1)), x = i => 14 + i * (width - 28) / T, svg = clear("arcs", width, y + 14);
  svg.style.minWidth = T > 24 ? `${width}px` : "";
  for (let i = 0; i < T; i++) for (let j = 0; j < i; j++) {
    const a = shown1(i, j), edge = isEdge.has(i * T + j), other = view.row !== null && view.row !== i;
    if (a <= .05) continue;
    hovers(arc(svg, i, j, x, y, {stroke: edge ? "var(--orange)" : "var(--grey)", "stroke-opacity": (.2 + .8 * a) * (other ? .2 : 1),
      "stroke-width": .6 + 2.2 * a}), () => `${i} attends to ${j}: ${share(a)}${edge ? ", an edge" : ""}`);
  }
  for (const [i, j] of D.edges) arc(svg, i, j, x, y, {stroke: "var(--orange)", "stroke-dasharray": "1 3", "pointer-events": "none"});
  for (const j of target) arc(svg, T, j, x, y, {stroke: "var(--ink)"});
  for (let i = 0; i <= T; i++) {
    const node = draw(svg, "g");
    draw(node, "circle", {cx: x(i), cy: y, r: 8, fill: "var(--paper)", stroke: "var(--ink)", ...(i < T ? {} : {"stroke-dasharray": "2 2"})});
    draw(node, "text", {x: x(i), y: y + 3, "font-size": 8.5, "text-anchor": "middle"}, i < T ? i : "?");
    if (i === T) continue;
    node.addEventListener("pointerenter", () => setRow(i));
    leaves(node, () => setRow(null));
  }
}

const place = step => Math.log2(1 + step);
const end = place(Math.max(1, steps[K - 1]));
const stepX = step => 40 + 290 * place(step) / end;
const nearest = step => steps.reduce((best, value, k) => Math.abs(place(value) - place(step)) < Math.abs(place(steps[best]) - place(step)) ? k : best, 0);
function drawLoss() {
  const levels = Object.entries(D.baselines), losses = D.losses;
  // An entropy far below the curve would flatten it: a label instead.
  const others = [...losses, ...levels.filter(([name]) => name !== "entropy").map(level => level[1])];
  const far = level => level[0] === "entropy" && Math.min(...others) - level[1] > Math.max(...others) - Math.min(...others);
  const drawn = levels.filter(level => !far(level)), all = [...losses, ...drawn.map(level => level[1])];
  const low = Math.min(...all), high = Math.max(...all);
  const svg = clear("loss", 480, 340), y = v => 26 + 180 * (high - v) / (high - low || 1), under = share => 305 - 70 * share;
  const label = (at, text, x = 345, more = {}) => draw(svg, "text", {x, y: at + 3, "font-size": 9.5, ...more}, text);
  let free = Infinity;
  for (const [name, v] of drawn.sort((a, b) => a[1] - b[1])) {
    const at = Math.min(y(v), free);
    free = at - 11;
    draw(svg, "polyline", {points: `40,${y(v)} 331,${y(v)} 342,${at}`, fill: "none", stroke: "var(--grey)", "stroke-width": .7});
    label(at, `${name} ${v.toFixed(3)}`);
  }
  for (const [name, v] of levels.filter(far)) label(224, `${name} ${v.toFixed(3)}, below`, 345, {class: "soft"});
  const left = {"text-anchor": "end", class: "soft"}, middle = {"text-anchor": "middle", class: "soft"};
  for (let n = 0; n <= 3; n++) label(y(low + (high - low) * n / 3), (low + (high - low) * n / 3).toFixed(2), 35, left);
  label(10, "test loss (nats)", 2, {class: "soft"});
  const line = (values, at, more) => draw(svg, "polyline", {fill: "none", "stroke-width": 1.6, ...more,
    points: values.map((value, k) => [value, k]).filter(([value]) => value !== null).map(([value, k]) => `${stepX(steps[k])},${at(value)}`).join(" ")});
  line(losses, y, {stroke: "var(--blue)"});
  losses.forEach((v, k) => draw(svg, "circle", {cx: stepX(steps[k]), cy: y(v), r: 2.6, stroke: "var(--blue)", fill: D.estimated[k] ? "var(--paper)" : "var(--blue)"}));
  for (const share of [0, .5, 1]) {
    draw(svg, "line", {x1: 40, x2: 331, y1: under(share), y2: under(share), stroke: "var(--line)", "stroke-width": .7});
    label(under(share), share, 35, left);
  }
  line(D.recovered.map(n => D.edges.length ? n / D.edges.length : null), under, {stroke: "var(--blue)"});
  line(D.attention, under, {stroke: "var(--orange)", "stroke-dasharray": "4 2"});
  label(under(1), "edges recovered", 345, {style: "fill: var(--blue)"});
  label(under(.8), "attention on the parent", 345, {style: "fill: var(--orange)"});
  label(under(.8) + 11, "(dashed)", 345, {style: "fill: var(--orange)"});
  label(318, 0, stepX(0), middle);
  for (let step = 1; step <= steps[K - 1]; step *= 4) label(318, step, stepX(step), middle);
  label(331, "step (open circles: loss estimated from part of the test set)", 185, middle);
  draw(svg, "line", {id: "now", y1: 18, y2: 308, stroke: "var(--ink)", "stroke-width": 1.2});
  onSteps(svg, 14, 296, k => {
    const above = "edge posterior" in D.baselines ? `, ${(losses[k] - D.baselines["edge posterior"]).toFixed(4)} above the edge posterior` : "";
    return `step ${steps[k]}: loss ${losses[k].toFixed(4)}${D.estimated[k] ? " (estimated)" : ""}${above}\n` + progress(k);
  });
}

// The mix of predictors as a stack, and below it what each layer lacks, on the axis of steps of the loss.
const TONES = {uniform: "line", unigram: "green", "wrong graph": "ink", "edge posterior": "orange",
  "dirichlet edge posterior": "orange", "exact posterior": "purple"};
const mix = Object.entries(D.phases.weights), {left: unlike, layer_1: lack1, layer_2: lack2} = D.phases;
const nats = value => `${value < 0 ? "-" : ""}${share(Math.abs(value))}`;
function drawPhases() {
  const svg = clear("phases", 480, 304), over = weight => 126 - 108 * weight, sums = steps.map(() => 0);
  const label = (at, text, x = 345, more = {}) => draw(svg, "text", {x, y: at + 3, "font-size": 9.5, ...more}, text);
  const soft = {class: "soft"}, right = {"text-anchor": "end", ...soft}, middle = {"text-anchor": "middle", ...soft};
  label(6, "weight of each predictor in the mix", 2, soft);
  for (const share of [0, .5, 1]) label(over(share), share, 35, right);
  const point = (k, weight) => `${stepX(steps[k])},${over(weight).toFixed(2)}`;
  for (const [name, weights] of mix) {
    const low = steps.map((_, k) => point(k, sums[k]));
    weights.forEach((weight, k) => { sums[k] += weight; });
    draw(svg, "polygon", {points: [...steps.map((_, k) => point(k, sums[k])), ...low.reverse()].join(" "),
      fill: `var(--${TONES[name]})`, "fill-opacity": .85, "data-predictor": name});
  }
  mix.forEach(([name], n) => {
    const at = 24 + 15 * (mix.length - 1 - n);
    draw(svg, "rect", {x: 345, y: at - 5, width: 10, height: 10, rx: 2, fill: `var(--${TONES[name]})`});
    draw(svg, "text", {x: 359, y: at + 3, "font-size": name.length > 20 ? 8 : 9.5, "data-weight": name});
  });
  draw(svg, "text", {x: 345, y: 27 + 15 * mix.length, "font-size": 9.5, class: "soft", id: "unlike"});
  const all = [0, ...lack1, ...lack2], low = Math.min(...all), high = Math.max(...all);
  const under = value => 162 + 96 * (high - value) / (high - low || 1);
  label(146, "what layers 1 and 2 lack (nats)", 2, soft);
  for (const value of new Set([low, 0, high])) if (!value || Math.abs(under(value) - under(0)) > 9) label(under(value), value.toFixed(2), 35, right);
  draw(svg, "line", {x1: 40, x2: 331, y1: under(0), y2: under(0), stroke: "var(--grey)", "stroke-width": .7});
  let free = -Infinity;
  for (const [name, values, more] of [["layer 1 lacks", lack1, {stroke: "var(--orange)", "stroke-dasharray": "4 2"}],
    ["layer 2 lacks", lack2, {stroke: "var(--blue)"}]].sort((a, b) => b[1][K - 1] - a[1][K - 1])) {
    draw(svg, "polyline", {fill: "none", "stroke-width": 1.6, ...more, points: values.map((value, k) => `${stepX(steps[k])},${under(value).toFixed(2)}`).join(" ")});
    free = Math.max(under(values[K - 1]), free + 12);
    draw(svg, "text", {x: 345, y: free + 3, "font-size": 9.5, style: `fill: ${more.stroke}`, "data-lack": name});
  }
  label(277, 0, stepX(0), middle);
  for (let step = 1; step <= steps[K - 1]; step *= 4) label(277, step, stepX(step), middle);
  label(290, "step", 185, middle);
  draw(svg, "line", {id: "also", y1: 14, y2: 266, stroke: "var(--ink)", "stroke-width": 1.2});
  onSteps(svg, 14, 252, k => `step ${steps[k]}\n` + mix.map(([name, weights]) => `${share(weights[k])} ${name}`).reverse().join("\n")
    + `\n${unlike[k].toFixed(3)} nats left\nlayer 1 lacks ${lack1[k].toFixed(3)}, layer 2 ${lack2[k].toFixed(3)}`);
}
function movePhases() {
  const k = view.k;
  for (const name of ["x1", "x2"]) $("also").setAttribute(name, stepX(steps[k]));
  for (const [name, weights] of mix) document.querySelector(`[data-weight="${name}"]`).textContent = `${share(weights[k])} ${name}`;
  $("unlike").textContent = `${unlike[k].toFixed(3)} nats left`;
  for (const [name, values] of [["layer 1 lacks", lack1], ["layer 2 lacks", lack2]])
    document.querySelector(`[data-lack="${name}"]`).textContent = `${name} ${nats(values[k])}`;
  $("phases").setAttribute("aria-label", `phases at step ${steps[k]}: ` + mix.map(([name, weights]) => `${name} ${share(weights[k])}`).join(", ")
    + `; layer 1 lacks ${nats(lack1[k])} nats, layer 2 ${nats(lack2[k])}`);
}
// A face over a chart of steps: it says what is below the pointer, and a click goes to that step.
function onSteps(svg, y, height, text) {
  const face = draw(svg, "rect", {x: 30, y, width: 310, height, fill: "transparent", style: "cursor: pointer"});
  const at = event => {
    const box = face.getBoundingClientRect();
    return nearest(2 ** (((event.clientX - box.left) / box.width * 310 - 10) / 290 * end) - 1);
  };
  hovers(face, event => text(at(event)));
  face.addEventListener("click", event => set({k: at(event)}));
}
const progress = k => `${D.recovered[k]} of ${D.edges.length} edges recovered` + (D.attention[k] === null ? "" : `, attention on the parent ${share(D.attention[k])}`);
function moveLoss() {
  for (const name of ["x1", "x2"]) $("now").setAttribute(name, stepX(steps[view.k]));
}

// The circuit: changes of the loss by patches, measured beside predicted, and the scores during training.
const circuit = D.circuits, patched = circuit ? Object.keys(circuit.patches) : [];
const signed = value => `${value < 0 ? "-" : "+"}${Math.abs(value).toFixed(4)}`;
function fillTable(table, rows, heads = 0) {
  rows.forEach((cells, n) => {
    const row = html(table, "tr");
    cells.forEach((cell, m) => html(row, n < heads ? "th" : "td", {class: m ? "" : "text"}, cell));
  });
}
function drawPatches() {
  const chosen = {measured: $("change").value, predicted: $("by").value};
  const [found, expected] = ["measured", "predicted"].map(id => circuit.patches[chosen[id]]);
  const pair = (i, j) => i * (i - 1) / 2 + j, limit = Math.max(...expected.map(value => Math.abs(value ?? 0))) || 1;
  const c = 420 / T, every = Math.ceil(T / 20);
  for (const [id, values] of [["measured", found], ["predicted", expected]]) {
    const svg = clear(id, 460, 462);
    draw(svg, "text", {x: 30, y: 12, "font-size": 13}, `${id}: ${chosen[id]}`);
    for (let i = 0; i < T; i += every) {
      draw(svg, "text", {x: 26, y: 36 + (i + .5) * c, "text-anchor": "end", "font-size": 10, class: "soft"}, i);
      draw(svg, "text", {x: 30 + (i + .5) * c, y: 28, "text-anchor": "middle", "font-size": 10, class: "soft"}, i);
    }
    for (let i = 0; i < T; i++) for (let j = 0; j < i; j++) {
      const value = values[pair(i, j)], at = {x: 30 + j * c, y: 32 + i * c, width: c, height: c};
      if (value === null) continue;
      draw(svg, "rect", {...at, fill: "var(--panel)"});
      const cell = draw(svg, "rect", {...at, fill: value > 0 ? "var(--purple)" : "var(--green)", "data-pair": `${i},${j}`,
        "fill-opacity": Math.min(1, Math.abs(value) / limit).toFixed(3)});
      hovers(cell, () => `position ${i}, ${chosen.measured} of ${j}${isEdge.has(i * T + j) ? ", its parent" : ""}\n`
        + `measured ${signed(found[pair(i, j)])} nats\npredicted ${signed(expected[pair(i, j)])} nats`);
    }
    for (const [i, j] of D.edges) draw(svg, "rect", {x: 30 + j * c, y: 32 + i * c, width: c, height: c, fill: "none",
      stroke: "var(--orange)", "stroke-width": 1.5, "pointer-events": "none"});
  }
  $("means").textContent = `Purple: the loss grows, the full colour is ${limit.toFixed(3)} nats or more. Green: it falls.`;
}
function drawScores() {
  const svg = clear("scores", 480, 190), over = value => 140 - 118 * value, soft = {class: "soft", "font-size": 9.5};
  for (const value of [0, .5, 1]) {
    draw(svg, "line", {x1: 40, x2: 331, y1: over(value), y2: over(value), stroke: "var(--line)", "stroke-width": .7});
    draw(svg, "text", {x: 35, y: over(value) + 3, "text-anchor": "end", ...soft}, value);
  }
  let free = -Infinity;
  const drawn = [["parent", "blue", {}], ["matching", "orange", {"stroke-dasharray": "4 2"}], ["by chance", "grey", {}]]
    .map(([name, tone, more]) => [name, tone, more, circuit.curves[name]]).filter(([, , , values]) => values[K - 1] !== null);
  for (const [name, tone, more, values] of drawn.sort((a, b) => b[3][K - 1] - a[3][K - 1])) {
    draw(svg, "polyline", {fill: "none", "stroke-width": 1.6, stroke: `var(--${tone})`, ...more, "data-score": name,
      points: values.map((value, k) => value === null ? "" : `${stepX(steps[k])},${over(value).toFixed(2)}`).join(" ")});
    free = Math.max(over(values[K - 1]), free + 12);
    draw(svg, "text", {x: 345, y: free + 3, "font-size": 9.5, style: `fill: var(--${tone})`}, `${name} ${share(values[K - 1])}`);
  }
  draw(svg, "text", {x: stepX(0), y: 162, "text-anchor": "middle", ...soft}, 0);
  for (let step = 1; step <= steps[K - 1]; step *= 4) draw(svg, "text", {x: stepX(step), y: 162, "text-anchor": "middle", ...soft}, step);
  draw(svg, "text", {x: 185, y: 176, "text-anchor": "middle", ...soft}, "step");
  if (drawn.length < 3) ["no recorded prompt has a", "position that matches"].forEach((text, n) =>
    draw(svg, "text", {x: 345, y: free + 18 + 12 * n, ...soft}, text));
  onSteps(svg, 14, 138, k => `step ${steps[k]}\n` + drawn.map(([name, , , values]) => `${name} ${values[k] === null ? "-" : share(values[k])}`).join("\n"));
}
function showCircuit() {
  $("circuit").textContent = circuit.text;
  $("patched").hidden = !patched.length;
  $("blocked").hidden = !circuit.blocks.length;
  patched.forEach((name, n) => $(n < 2 ? "change" : "by").append(new Option(name, name)));
  for (const id of ["change", "by"]) $(id).onchange = drawPatches;
  if (patched.length) drawPatches();
  drawScores();
  fillTable($("agreement"), circuit.agreement, 1);
  fillTable($("scored"), circuit.scores);
  fillTable($("blocks"), [["matrix", "block", "share", "cosine", "scale"], ...circuit.blocks], 1);
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
  label(under + 60, `layer ${prompts.last_layer} attends`);
  label(under + 74, "from the last");
  for (let i = 0; i < T; i++) {
    const box = draw(svg, "rect", {x: x(i) - 13, y: y - 13, width: 26, height: 26, rx: 5, fill: hue(tokens[i]),
      stroke: target.includes(i) ? "var(--ink)" : "none", "stroke-width": 2.5});
    hovers(box, () => `position ${i}: token ${tokens[i]}${target.includes(i) ? "; the next token is drawn from its row" : ""}`);
    draw(svg, "text", {x: x(i), y: y + 5, "text-anchor": "middle", "font-size": 13, class: "token", "pointer-events": "none"}, tokens[i]);
    for (let h = 0; h < rows; h++) {
      const copied = copies(k, p, h, i), best = copied.indexOf(Math.max(...copied)), at = y + 27 + 26 * h;
      const match = D.sought[h] !== null && best === tokens[D.sought[h]] && copied[best] > .5 && !D.roots.includes(i);
      const small = draw(svg, "rect", {x: x(i) - 9, y: at, width: 18, height: 18, rx: 4, fill: hue(best), "fill-opacity": copied[best],
        stroke: match ? "var(--ink)" : "var(--line)", "stroke-width": match ? 1.8 : .6});
      hovers(small, () => `layer 1 copies to position ${i}:\n` + copied.map((a, s) => [a, s]).sort((a, b) => b[0] - a[0]).slice(0, 3)
        .filter(([a]) => a > .005).map(([a, s]) => `  ${share(a)} of token ${s}`).join("\n"));
      draw(svg, "text", {x: x(i), y: at + 13, "text-anchor": "middle", "font-size": 10.5, "pointer-events": "none",
        ...(copied[best] > .35 ? {class: "token"} : {})}, best);
    }
    const a = last1(k, p, i), bar = draw(svg, "g");
    draw(bar, "rect", {x: x(i) - 13, y: under, width: 26, height: 72, fill: "transparent"});
    draw(bar, "rect", {x: x(i) - 9, y: under + 72 - 72 * a, width: 18, height: Math.max(.8, 72 * a), fill: "var(--blue)", "data-last": i});
    hovers(bar, () => `layer ${prompts.last_layer} attends to position ${i}: ${share(a)}\nwhose token is ${tokens[i]}`);
    draw(svg, "text", {x: x(i), y: under + 86, "text-anchor": "middle", "font-size": 9, class: "soft"}, i);
  }
}
function drawLaws() {
  const p = view.prompt, names = Object.keys(prompts.laws), colours = {"true law": "grey", "edge posterior": "orange", "exact posterior": "purple"};
  const truth = prompts.laws["true law"][p], series = [["model", "blue", s => model[(view.k * P + p) * S + s] / D.levels],
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
  $("step").textContent = `step ${steps[k]}: loss ${D.losses[k].toFixed(3)}, ${D.recovered[k]}/${D.edges.length} edges${attention}`;
  $("printed").textContent = `Step ${steps[k]} of training. ${progress(k)}.` + (P ? ` Prompt ${view.prompt + 1}.` : "");
  const row = view.row;
  view.row = undefined;
  setRow(row);
  moveLoss();
  movePhases();
  if (P) { drawPrompt(); drawLaws(); }
  lines.forEach((line, of) => line.classList.toggle("now", of.step === steps[k]));
}

const asked = T - 1, isQuery = D.roots.includes(asked) && target.length === 1 && target[0] === asked;
const isChain = D.edges.length > 1 && D.edges.every(([i, j]) => j === i - 1);
$("lead").append(`A transformer learns to predict the next token of prompts with ${T} positions and ${S} different tokens. Each token depends on `
  + (D.parents > 1 ? "tokens at earlier positions, its parents: it is drawn from the row of a table of probabilities that they select. "
    : "one earlier token, its parent: it is drawn from the row of a table of probabilities that the parent's token selects. ")
  + (D.graphs > 1 ? `Which positions are parents of which is drawn for each prompt, from ${D.graphs} graphs. The model must infer the graph from the prompt. `
    + "It predicts the token after every position, and the loss is the mean over positions. The edges below are those that all graphs have. "
    : "Which positions are parents of which is the same in all prompts. This is the causal graph. "
    + (D.kernels ? `Each prompt has one of ${D.kernels} tables. The model can memorise the tables and recognise that of the prompt, or it can estimate the table from the prompt. `
      + "For that it must know the graph, which it is never given. This page shows whether training finds it. "
      : "Each prompt has a table of its own, so the model must estimate the table from the prompt, and for that it must know the graph, which it is never given. "
      + "This page shows how training finds it. "))
  + (D.roots.length ? `Positions without a parent are roots: ${D.roots.length > 12 ? `there are ${D.roots.length}` : D.roots.join(", ")}. ` : "")
  + (isQuery ? `The last one, position ${asked}, is the query: the next token is drawn from the row that its token selects. ` : "")
  + (isChain ? "On a chain, where the parent is the position before, the learned model is an induction head." : ""));
const found = D.recovered.findIndex(n => n === D.edges.length), sharp = D.attention.findIndex(a => a !== null && a > .5);
const fall = D.losses[0] - D.losses[K - 1], half = D.losses.findIndex(loss => loss < D.losses[0] - fall / 2);
if (D.edges.length) $("course").textContent = (found < 0 ? `In the end, ${D.recovered[K - 1]} of ${D.edges.length} edges are recovered. `
    : `From step ${steps[found]} on the slider, all edges are recovered: each position attends most to its parent${D.parents > 1 ? "s" : ""}. `)
  + (sharp < 0 ? "The mean attention on the parent stays below one half. " : `The mean attention on the parent passes one half by step ${steps[sharp]}. `)
  + (fall > 0 && half > 0 ? `Half of the fall of the loss is done by step ${steps[half]}.` : "");
for (const node of document.querySelectorAll(".last")) node.textContent = prompts?.last_layer ?? 2;
for (const [value, text] of [[`${D.recovered[K - 1]} of ${D.edges.length}`, "edges recovered"],
  [D.attention[K - 1] === null ? "-" : share(D.attention[K - 1]), "mean attention on the parent"],
  [D.losses[K - 1].toFixed(3), "test loss (nats)"],
  ...("edge posterior" in D.baselines ? [[(D.losses[K - 1] - D.baselines["edge posterior"]).toFixed(3), "nats above a predictor that knows the graph"]] : []),
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
drawPhases();
$("circuits").hidden = !circuit;
if (circuit) showCircuit();
$("phase").textContent = D.phases.text;
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
map.addEventListener("pointerdown", event => setRow(cellAt(event)?.[0] ?? null));
leaves(map, () => setRow(null));
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
for (const media of ["(prefers-color-scheme: dark)", "print"]) matchMedia(media).addEventListener("change", drawMap);
set({});
