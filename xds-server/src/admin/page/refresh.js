// What is asked for, which the address of the page keeps, and asking again while the page is looked at.
const EVERY_MS = 2000, SLOWLY_MS = 15000, PATIENCE_MS = 10000, FIRST = 12;
const expanded = new Set();
const shown = {};
const view = { since: "24h", by: "consumer", measure: "tokens", consumer: "", model: "" };
const CHOICES = { since: Object.keys(SPANS), by: ["consumer", "model", "backend"], measure: Object.keys(MEASURES) };
let timer = 0, round = 0, namesAt = 0;

for (const [field, value] of new URLSearchParams(location.hash.slice(1))) {
  if (field in view && (CHOICES[field]?.includes(value) ?? true)) view[field] = value;
}

function choose(field, value) {
  view[field] = value;
  const said = Object.entries(view).filter(([, chosen]) => chosen);
  history.replaceState(null, "", `#${new URLSearchParams(said)}`);
  showView();
  refresh();
}

function showView() {
  for (const field of Object.keys(CHOICES)) {
    for (const button of byId(field).children) button.setAttribute("aria-pressed", String(button.dataset.value === view[field]));
  }
  byId("consumer").value = view.consumer;
  byId("model").value = view.model;
  byId("clear").hidden = !view.consumer && !view.model;
}

// === asking ===

async function ask(path, parameters) {
  const query = parameters ? `?${new URLSearchParams(parameters)}` : "";
  const response = await fetch(path + query, { signal: AbortSignal.timeout(PATIENCE_MS), cache: "no-store" });
  if (response.status === 401) {
    // The session has ended.
    location.assign("login");
    throw new Error("Log in again.");
  }
  const text = await response.text();
  if (response.ok) return text;
  let message = "";
  try { message = JSON.parse(text).error.message; } catch { message = text; }
  throw new Error(message || `${path} answered ${response.status}`);
}

// What has not changed is left alone, so that text can be selected and read out.
function show(part, text, asked, render) {
  const key = JSON.stringify([asked, Math.floor(Date.now() / 60000), text]);
  if (shown[part] === key) return;
  render(JSON.parse(text), view);
  shown[part] = key;
}

function problem(message) {
  const box = byId("problem");
  byId("main").classList.toggle("stale", Boolean(message) && Object.keys(shown).length > 0);
  box.hidden = !message;
  if (!message) return;
  const first = !Object.keys(shown).length;
  box.replaceChildren(el("p", "", message), el("p", "small muted", first ? "Trying again." : "What is below is from before. Trying again."));
}

async function refresh() {
  clearTimeout(timer);
  const mine = ++round;
  const { since, by, consumer, model } = view, asked = { ...view };
  const step = SPANS[since][0];
  const asksNames = Date.now() - namesAt > SLOWLY_MS;
  try {
    const [budgets, status, usage, plot, consumers, models] = await Promise.all([
      ask("api/budgets"),
      ask("api/status", { objects: false }),
      ask("api/usage", { since, consumer, model, limit: 10000 }),
      ask("api/usage/series", { since, step, by, consumer, model, limit: 7 }),
      ...(asksNames ? [ask("api/usage/series", { since, step: "day", by: "consumer", limit: 50 }), ask("api/usage/series", { since, step: "day", by: "model", limit: 50 })] : []),
    ]);
    if (mine !== round) return;
    show("budgets", budgets, "", showBudgets);
    show("status", status, "", showStatus);
    show("usage", usage, asked, showUsage);
    show("plot", plot, asked, showPlot);
    if (asksNames) {
      show("consumers", consumers, "", ({ series }) => showNames(series, "consumers"));
      show("models", models, "", ({ series }) => showNames(series, "models"));
      namesAt = Date.now();
    }
    problem("");
  } catch (error) {
    if (mine !== round) return;
    const unreachable = error instanceof TypeError || error.name === "TimeoutError";
    problem(unreachable ? "The control plane does not answer." : error.message);
    const ready = byId("ready");
    ready.className = "small state bad";
    ready.textContent = "No data";
    delete shown.status;
  }
  // A long span has many rows to read, and little of it changes.
  const pause = step === "hour" ? EVERY_MS : SLOWLY_MS;
  if (!document.hidden) timer = setTimeout(refresh, pause);
}

for (const field of Object.keys(CHOICES)) {
  byId(field).addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) choose(field, button.dataset.value);
  });
}
for (const field of ["consumer", "model"]) byId(field).addEventListener("change", (event) => choose(field, event.target.value.trim()));
byId("filter").addEventListener("submit", (event) => event.preventDefault());
byId("clear").addEventListener("click", () => { view.model = ""; choose("consumer", ""); byId("consumer").focus(); });
document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : refresh()));
showView();
refresh();
