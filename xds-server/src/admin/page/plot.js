// Usage over time: a bar for each hour or day, stacked by name. The figures are in a table as well.
const HOUR = 3600e3, DAY = 24 * HOUR;
const SPANS = { "24h": ["hour", 24 * HOUR], "7d": ["day", 7 * DAY], "30d": ["day", 30 * DAY], "90d": ["day", 90 * DAY] };
const HEIGHT = 240, LEFT = 46, BOTTOM = 22, TOP = 8;
const MEASURES = { tokens: (point) => point.input_tokens + point.output_tokens, requests: (point) => point.requests };
let plotted = null, read = -1;

function svg(tag, attributes, ...children) {
  const node = document.createElementNS("http:" + "//www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

const colour = (series, place) => (series.names ? "s-other" : `s${place % 7}`);
const seriesName = (series) => (series.names ? `${few(series.names, "other", "others")}` : named(series.name));

function when(start, step, long) {
  const date = new Date(start);
  const zone = { timeZone: "UTC" };
  if (step === "day") return date.toLocaleDateString(undefined, { ...zone, month: "short", day: "numeric", ...(long && { weekday: "short", year: "numeric" }) });
  return date.toLocaleString(undefined, { ...zone, hour: "2-digit", minute: "2-digit", ...(long && { month: "short", day: "numeric", timeZoneName: "short" }) });
}

// All hours or days of the span, those without usage too.
function slots(plot, since) {
  const [step, span] = SPANS[since];
  const width = step === "hour" ? HOUR : DAY;
  const found = new Map();
  for (let start = Math.floor((Date.now() - span) / width) * width; start <= Date.now(); start += width) found.set(start, []);
  plot.series.forEach((series, place) => {
    for (const point of series.points) {
      const start = Date.parse(point.start);
      found.set(start, [...(found.get(start) ?? []), { series, place, point }]);
    }
  });
  return [...found].sort(([a], [b]) => a - b).map(([start, parts]) => ({ start, parts }));
}

// The largest of 1, 2, 2.5 and 5 times a power of ten that gives four lines or fewer.
function unit(most) {
  const raw = Math.max(most, 1) / 4, power = 10 ** Math.floor(Math.log10(raw));
  return Math.max(1, [1, 2, 2.5, 5, 10].map((n) => n * power).find((n) => n >= raw));
}

function draw(all, step, measure) {
  const sum = (slot) => slot.parts.reduce((total, { point }) => total + measure(point), 0);
  const line = unit(Math.max(...all.map(sum)));
  const most = Math.max(line, Math.ceil(Math.max(...all.map(sum)) / line) * line);
  const floor = HEIGHT - BOTTOM, y = (value) => floor - (value / most) * (floor - TOP);
  // Drawn as wide as it is shown, so that letters have their size.
  const width = Math.max(byId("plot").clientWidth, 240);
  const wide = (width - LEFT) / all.length;
  const thick = Math.min(Math.max(wide - Math.min(6, wide / 2.5), 1), 48);
  const lines = [], labels = [], bars = [], places = [];
  for (let value = 0; value <= most; value += line) {
    lines.push(svg("line", { x1: LEFT, x2: width, y1: y(value), y2: y(value) }));
    labels.push(svg("text", { x: LEFT - 8, y: y(value) + 4, "text-anchor": "end" }, short.format(value)));
  }
  const every = Math.ceil(all.length / (width / 90));
  all.forEach((slot, at) => {
    const x = LEFT + at * wide;
    places.push(svg("rect", { x, y: TOP, width: wide, height: floor - TOP, class: "slot", "data-at": at }));
    if (at % every === 0) labels.push(svg("text", { x: x + wide / 2, y: HEIGHT - 6, "text-anchor": "middle" }, when(slot.start, step)));
    let base = 0;
    for (const { series, place, point } of slot.parts) {
      const value = measure(point);
      if (!value) continue;
      const top = y(base + value), height = Math.max(y(base) - top, 0.5);
      bars.push(svg("rect", { x: x + (wide - thick) / 2, y: top, width: thick, height, class: colour(series, place) }));
      base += value;
    }
  });
  return svg("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, "aria-hidden": "true" }, ...lines, ...places, svg("g", { class: "bars" }, ...bars), ...labels);
}

function readOut(at) {
  const { all, step, measure, word } = plotted;
  read = at;
  byId("plot").querySelectorAll(".slot").forEach((slot) => slot.classList.toggle("read", Number(slot.dataset.at) === at));
  const slot = all[at];
  if (!slot) { byId("plot-read").textContent = ""; return; }
  const parts = slot.parts.filter(({ point }) => measure(point)).map(({ series, point }) => `${seriesName(series)} ${count(measure(point))}`);
  const sum = slot.parts.reduce((total, { point }) => total + measure(point), 0);
  byId("plot-read").textContent = `${when(slot.start, step, true)}: ${count(sum)} ${word}${parts.length ? ` (${parts.join(", ")})` : ""}`;
}

function legend(plot, measure) {
  const item = (series, place) => el("li", "",
    svg("svg", { viewBox: "0 0 10 10", "aria-hidden": "true" }, svg("rect", { width: 10, height: 10, rx: 2, class: colour(series, place) })),
    seriesName(series), el("span", "muted", count(series.points.reduce((total, point) => total + measure(point), 0))));
  byId("legend").replaceChildren(...plot.series.map(item));
}

function figures(all, plot, step, measure) {
  const head = (text, classes) => { const cell = el("th", classes, text); cell.scope = "col"; return cell; };
  const row = (slot) => {
    const cell = el("th", "", when(slot.start, step, true));
    cell.scope = "row";
    const of = (series) => slot.parts.find((part) => part.series === series);
    return el("tr", "", cell, ...plot.series.map((series) => el("td", "num", count(of(series) ? measure(of(series).point) : 0))));
  };
  byId("plot-table").replaceChildren(el("table", "",
    el("thead", "", el("tr", "", head(step === "day" ? "Day (UTC)" : "Hour (UTC)"), ...plot.series.map((series) => head(seriesName(series), "num")))),
    el("tbody", "", ...all.filter((slot) => slot.parts.length).map(row))));
}

function showPlot(plot, { since, measure: word }) {
  const measure = MEASURES[word], { step } = plot;
  const all = slots(plot, since);
  plotted = { all, step, measure, word };
  byId("plot-title").textContent = `${word === "tokens" ? "Tokens" : "Requests"} by ${step}, UTC`;
  byId("plot").replaceChildren(draw(all, step, measure));
  legend(plot, measure);
  figures(all, plot, step, measure);
  readOut(Math.min(read, all.length - 1));
}

new ResizeObserver(() => plotted && byId("plot").replaceChildren(draw(plotted.all, plotted.step, plotted.measure))).observe(byId("plot"));
byId("plot").addEventListener("pointermove", (event) => {
  const at = event.target.dataset?.at;
  if (at !== undefined && Number(at) !== read) readOut(Number(at));
});
byId("plot").addEventListener("pointerleave", () => plotted && readOut(-1));
byId("plot").addEventListener("keydown", (event) => {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!step || !plotted) return;
  event.preventDefault();
  const last = plotted.all.length - 1;
  readOut(read < 0 ? last : Math.min(Math.max(read + step, 0), last));
});

