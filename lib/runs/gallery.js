"use strict";
// Whatever the data say is shown as text: nothing here writes HTML.
const data = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const make = (tag, properties, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};
const short = (value, digits = 4) => (Number.isFinite(value) ? String(Number(value.toPrecision(digits))) : "–");
const kinds = { found: [], missed: [], "false alarm": [], passed: [], called: [], "not called": [], "no score": [] };
const MANY = 100; // images, of which a share says more than their count
const COUNTED = { normal: ["passed", "false alarm"], abnormal: ["missed", "found"] };
const methods = Object.keys(data.ceilings);
const methodOf = (score) => score.split(",")[0];
const filters = {}; // by field: the select
let score = data.scores[0];
let threshold = 0;
let current = 0; // the image that is open, or was
let order = []; // places of images as they are shown, hidden ones too

// --- what is known of an image, and what a threshold makes of it

const unlike = (image) => image.unlike && `unlike the model's normal images: ${image.unlike}`;

function outcomeOf(i, of, limit) {
  const value = of.values[i];
  if (value === null || limit === null) return "no score";
  const called = value > limit;
  const counted = data.labelled && COUNTED[data.images[i].label];
  return counted ? counted[Number(called)] : called ? "called" : "not called";
}

function rocPoints() {
  const rows = data.images.map((image, i) => [score.values[i], image.label]);
  const ranked = rows.filter(([value, label]) => value !== null && label in COUNTED).sort((a, b) => b[0] - a[0]);
  const abnormal = ranked.filter(([, label]) => label === "abnormal").length;
  const points = [[0, 0]];
  let [alarms, found] = [0, 0];
  ranked.forEach(([value, label], i) => {
    if (label === "abnormal") found += 1;
    else alarms += 1;
    const last = i + 1 === ranked.length || ranked[i + 1][0] !== value; // of those with this value
    if (last) points.push([alarms / (ranked.length - abnormal), found / abnormal]);
  });
  return points;
}

// --- the grid

const tiles = data.images.map((image, i) => {
  const spans = ["score", "outcome", "finding"].map((className) => make("span", { className }));
  const picture = make("img", { src: image.image, alt: "", loading: "lazy", decoding: "async" });
  const badge = image.unlike ? [make("span", { className: "unlike", title: unlike(image) }, "unlike")] : [];
  const button = make("button", { type: "button", className: "tile" }, picture, ...badge, ...spans);
  button.addEventListener("click", () => open(i));
  spans[2].textContent = data.labelled ? image.finding || image.label : image.name;
  return { button, item: make("li", {}, button), spans };
});

function matches(i) {
  return Object.entries(filters).every(([field, { value }]) => {
    if (!value) return true;
    if (field === "unlike") return value === (data.images[i].unlike ? "unlike" : "like");
    if (field !== "outcome") return (data.images[i][field] || "").split("|").includes(value);
    return value === outcomeOf(i, score, threshold) || (value === "all called" && score.values[i] > threshold);
  });
}

function arrange() {
  const sign = Number(at("order").value);
  const rank = (i) => (score.values[i] === null ? Infinity : sign * score.values[i]); // without a score: last
  order = data.images.map((_, i) => i).sort((a, b) => (rank(a) === rank(b) ? a - b : rank(a) - rank(b)));
  at("grid").replaceChildren(...order.map((i) => tiles[i].item));
}

function update() {
  for (const kind of Object.keys(kinds)) kinds[kind] = [];
  let visible = 0;
  tiles.forEach(({ button, item, spans }, i) => {
    const image = data.images[i];
    const outcome = outcomeOf(i, score, threshold);
    kinds[outcome].push(i);
    button.dataset.outcome = outcome;
    spans[0].textContent = short(score.values[i]);
    spans[1].textContent = outcome;
    const facts = [image.name, image.label, image.finding, `score ${short(score.values[i])}`, outcome, unlike(image)];
    button.setAttribute("aria-label", facts.filter(Boolean).join(", "));
    item.hidden = !matches(i);
    visible += Number(!item.hidden);
  });
  at("status").textContent = visible ? `${visible} of ${tiles.length} images shown` : "No image has all of this.";
  count();
  if (at("viewer").open) show(current);
}

function count() {
  const n = (kind) => kinds[kind].length;
  const line = (before, number, after) => make("div", {}, before, make("b", {}, number), after);
  if (data.labelled) {
    const [abnormal, normal] = [n("found") + n("missed"), n("false alarm") + n("passed")];
    const [sensitivity, alarms] = [n("found") / abnormal, n("false alarm") / normal];
    at("counts").replaceChildren(
      line("Sensitivity ", short(sensitivity, 3), `, ${n("found")} of ${abnormal} abnormal found`),
      line("False alarms ", short(alarms, 3), `, ${n("false alarm")} of ${normal} normal called`),
    );
    at("point").setAttribute("cx", 100 * alarms || 0);
    at("point").setAttribute("cy", 100 - (100 * sensitivity || 0));
    const here = `sensitivity ${short(sensitivity, 3)}, false alarms ${short(alarms, 3)}`;
    at("roc-title").textContent = `ROC curve of ${score.name}; at this threshold ${here}`;
  } else {
    const share = tiles.length < MANY ? "" : `, ${short(100 * n("called") / tiles.length, 2)} %`;
    at("counts").replaceChildren(line("", n("called"), ` of ${tiles.length} called${share}`));
  }
}

function setThreshold(value) {
  if (!Number.isFinite(value)) return;
  threshold = value;
  at("threshold").value = value;
  at("threshold").setAttribute("aria-valuetext", short(value));
  if (document.activeElement !== at("number")) at("number").value = short(value);
  at("moved").hidden = score.threshold === null || value === score.threshold;
  update();
}

function choose() {
  score = data.scores[Number(at("score").value)];
  const values = score.values.filter((value) => value !== null).sort((a, b) => a - b);
  const start = score.threshold ?? values[values.length >> 1];
  const [low, high] = [Math.min(values[0], start), Math.max(values.at(-1), start)];
  at("threshold").min = low - (high - low) / 100; // there all images are called
  at("threshold").max = high;
  at("back").textContent = `back to ${short(score.threshold)}`;
  at("roc").hidden = !score.auroc;
  if (score.auroc) {
    at("curve").setAttribute("points", rocPoints().map(([x, y]) => `${100 * x},${100 - 100 * y}`).join(" "));
    const { value, low, high } = score.auroc;
    at("auroc").textContent = `${score.name}: AUROC ${short(value, 3)} [${short(low, 2)}, ${short(high, 2)}]`;
  }
  arrange();
  setThreshold(start);
}

// --- one image, large

const SVG = "http://www.w3.org/2000/svg";

function outlined(image) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${image.size} ${image.size}`);
  svg.setAttribute("aria-hidden", "true");
  svg.classList.add("lesion");
  const path = svg.appendChild(document.createElementNS(SVG, "path"));
  path.setAttribute("d", image.lesion);
  return svg;
}

function figure(caption, ...layers) {
  return make("figure", {}, make("div", { className: "stack" }, ...layers), make("figcaption", {}, caption));
}

function column(image, method) {
  const picture = make("img", { src: image.image, alt: `Radiograph ${image.name}` });
  const src = image.maps[method];
  const over = make("img", { src, alt: `Residual map of ${method} over it`, className: "over" });
  const alone = make("img", { src, alt: `Residual map of ${method} of ${image.name}`, className: "alone" });
  over.dataset.method = alone.dataset.method = method;
  const lesion = () => (image.lesion ? [outlined(image)] : []);
  const below = make("div", { className: "pair" });
  const redrawn = image.reconstructions[method];
  const alt = redrawn ? `Reconstruction of ${image.name} by ${method}` : `Radiograph ${image.name} alone`;
  const beside = make("img", { src: redrawn ?? image.image, alt });
  below.append(figure(redrawn ? "reconstruction" : "image", beside), figure("residual", alone, ...lesion()));
  const parts = [make("h3", {}, method), figure("", picture, over, ...lesion()), below];
  return make("section", {}, ...parts, table(data.scores.filter(({ name }) => methodOf(name) === method)));
}

function table(scores) {
  const heads = ["score", "value", "threshold", ...(scores.some(({ p }) => p.length) ? ["p"] : []), ""];
  const rows = scores.map((of) => {
    const limit = of === score ? threshold : of.threshold;
    const cells = [short(of.values[current]), short(limit), ...(of.p.length ? [short(of.p[current])] : [])];
    cells.push(outcomeOf(current, of, limit));
    const name = make("th", { scope: "row" }, of.name);
    return make("tr", { className: of === score ? "chosen" : "" }, name, ...cells.map((text) => make("td", {}, text)));
  });
  const head = make("tr", {}, ...heads.map((text) => make("th", { scope: "col" }, text)));
  return make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows));
}

function show(i) {
  current = i;
  const image = data.images[i];
  at("name").textContent = image.name;
  const facts = [image.label, image.finding, image.view && `view ${image.view}`, unlike(image)];
  at("facts").textContent = facts.filter(Boolean).join(" · ");
  at("columns").replaceChildren(...methods.map((method) => column(image, method)));
  const others = data.scores.filter(({ name }) => !methods.includes(methodOf(name)));
  at("others").replaceChildren(...(others.length ? [make("h3", {}, "without a map"), table(others)] : []));
  dress();
}

function dress() {
  const brightest = Math.max(...Object.values(data.ceilings));
  for (const map of at("columns").querySelectorAll(".over, .alone")) {
    const ceiling = data.ceilings[map.dataset.method];
    const share = at("same").checked ? ceiling / brightest : 1;
    map.style.filter = `brightness(${share}) url(#colours${map.className === "over" ? "-over" : ""})`;
    const caption = map.closest("figure").lastChild;
    if (map.className === "alone") {
      caption.textContent = `residual; brightest from ${short(ceiling / share)} on (white = 1)`;
      continue;
    }
    map.hidden = !at("map").checked;
    map.style.opacity = at("opacity").value;
    caption.textContent = map.hidden ? "image" : "image under the map";
  }
  const lesions = at("columns").querySelectorAll(".lesion");
  for (const lesion of lesions) lesion.toggleAttribute("hidden", !at("lesion").checked);
}

function open(i) {
  at("viewer").showModal(); // Escape closes it
  at("viewer").focus();
  show(i);
}

function step(from, by) {
  const visible = order.filter((i) => !tiles[i].item.hidden || i === from);
  return visible[Math.min(Math.max(visible.indexOf(from) + by, 0), visible.length - 1)];
}

const ARROWS = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };

at("viewer").addEventListener("keydown", (event) => {
  const control = event.target.closest("input, button");
  if (event.key in ARROWS && control?.type !== "range") show(step(current, ARROWS[event.key]));
  else if (event.key === " " && !control) at("map").click();
  else return;
  event.preventDefault();
});
at("viewer").addEventListener("close", () => tiles[current].button.focus());
at("grid").addEventListener("keydown", (event) => {
  const i = tiles.findIndex(({ button }) => button === event.target);
  if (i < 0 || !(event.key in ARROWS)) return;
  tiles[step(i, ARROWS[event.key])].button.focus();
  event.preventDefault();
});
for (const id of ["map", "opacity", "lesion", "same"]) at(id).addEventListener("input", dress);
at("previous").addEventListener("click", () => show(step(current, -1)));
at("next").addEventListener("click", () => show(step(current, 1)));
at("close").addEventListener("click", () => at("viewer").close());

// --- the page

function filter(field, name, options) {
  if (options.length < 2) return;
  const choices = options.map((value) => make("option", { value }, value));
  filters[field] = make("select", { id: `filter-${field}` }, make("option", { value: "" }, "all"), ...choices);
  filters[field].addEventListener("change", update);
  at("filters").append(make("label", {}, `${name} `, filters[field]));
}

const partsOf = (field) => data.images.flatMap((image) => (image[field] || "").split("|"));
const values = (field) => [...new Set(partsOf(field))].filter(Boolean).sort();
const OUTCOMES = data.labelled ? ["all called", ...Object.values(COUNTED).flat()] : ["called", "not called"];

at("title").textContent = `${data.title}: the images`;
at("warnings").append(...data.warnings.map((text) => make("p", {}, text)));
at("which").textContent = data.sentences[0];
at("remarks").append(...data.remarks.map((text) => make("p", {}, text)));
at("sentences").append(...data.sentences.slice(1).map((text) => make("p", {}, text)));
at("use").textContent = data.warnings.join(" ");
at("score").append(...data.scores.map(({ name }, value) => make("option", { value }, name)));
filter("outcome", "called or not", OUTCOMES);
filter("label", "label", values("label"));
filter("finding", "finding", values("finding"));
filter("view", "view", values("view"));
if (values("unlike").length) filter("unlike", "likeness", ["unlike", "like"]);
at("marked").hidden = !data.images.some(({ lesion }) => lesion);
at("scaled").hidden = methods.length < 2;
at("score").addEventListener("change", choose);
at("order").addEventListener("change", () => { arrange(); update(); });
at("threshold").addEventListener("input", (event) => setThreshold(event.target.valueAsNumber));
at("number").addEventListener("input", (event) => setThreshold(event.target.valueAsNumber));
at("back").addEventListener("click", () => {
  setThreshold(score.threshold);
  at("threshold").focus(); // the button is gone
});
at("controls").addEventListener("submit", (event) => event.preventDefault());
choose();
