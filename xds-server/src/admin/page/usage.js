// Usage in one span: sums, who used most, and all rows as a table that can be sorted.
const COLUMNS = [
  { field: "requests", label: "Requests", always: true },
  { field: "input_tokens", label: "Input", always: true },
  { field: "cached_input_tokens", label: "Cached", title: "Part of input that came from a prompt cache" },
  { field: "output_tokens", label: "Output", always: true },
  { field: "reasoning_tokens", label: "Reasoning", title: "Part of output that was reasoning" },
  { field: "estimated_requests", label: "Estimated", title: "Requests whose tokens were counted from bytes, because the backend did not say" },
];
const NAMES = { consumer: "Consumer and route", model: "Model and backend" };
const MOST = 8, ROWS = 12;
let order = { field: "tokens", up: false };
let lastUsage = null, showsAll = false;

const total = (rows, field) => rows.reduce((sum, row) => sum + row[field], 0);
const tokens = (row) => row.input_tokens + row.output_tokens;

function showSums(rows) {
  const sum = (label, value, field) => {
    const figure = el("dd", "", count(value));
    figure.dataset.field = field;
    return el("div", "", el("dt", "", label), figure);
  };
  byId("sums").replaceChildren(sum("Tokens", total(rows, "input_tokens") + total(rows, "output_tokens"), "tokens"),
    ...COLUMNS.filter((column) => column.always || total(rows, column.field)).map(({ label, field }) => sum(label, total(rows, field), field)));
}

// Bars of the names that used most. A name is a filter.
function showMost(place, field, rows, measure) {
  const sums = new Map();
  for (const row of rows) sums.set(row[field], (sums.get(row[field]) ?? 0) + measure(row));
  const sorted = [...sums].sort(([a, x], [b, y]) => y - x || a.localeCompare(b));
  const largest = Math.max(...sums.values(), 1);
  const one = ([name, value]) => {
    const pick = el("button", "name", named(name));
    pick.type = "button";
    pick.disabled = !name;
    pick.addEventListener("click", () => choose(field, name));
    const bar = el("div", "bar", el("i"));
    bar.firstChild.style.width = value ? `max(2px, ${(100 * value) / largest}%)` : "0";
    bar.setAttribute("aria-hidden", "true");
    return el("div", "one", el("div", "line", pick, el("span", "", count(value))), bar);
  };
  const rest = sorted.slice(MOST);
  const more = rest.length ? el("div", "one small muted", `${few(rest.length, "other", "others")}: ${count(rest.reduce((sum, [, value]) => sum + value, 0))}`) : null;
  byId(place).replaceChildren(...(sorted.length ? [...sorted.slice(0, MOST).map(one), more].filter(Boolean) : [el("div", "empty", "Nothing yet.")]));
}

function sorted(rows) {
  const value = order.field === "tokens" ? tokens : (row) => row[order.field];
  const compare = (a, b) => (typeof value(a) === "string" ? value(a).localeCompare(value(b)) : value(a) - value(b));
  return [...rows].sort((a, b) => (order.up ? compare(a, b) : compare(b, a)));
}

function head(field, label, classes, title) {
  const button = titled(el("button", "", label), title ?? "");
  button.type = "button";
  button.dataset.field = field;
  const cell = el("th", classes, button);
  cell.scope = "col";
  if (order.field === field) cell.setAttribute("aria-sort", order.up ? "ascending" : "descending");
  button.addEventListener("click", () => {
    order = { field, up: order.field === field ? !order.up : field in NAMES };
    showTable(lastUsage);
    byId("usage").querySelector(`thead [data-field="${field}"]`)?.focus();
  });
  return cell;
}

function showTable({ rows, next }) {
  if (!rows.length) {
    byId("usage").replaceChildren(el("div", "empty", "No request ended in this time."));
    return;
  }
  const columns = COLUMNS.filter((column) => column.always || total(rows, column.field) > 0);
  const cell = (column, value) => {
    const none = !value && !column.always;
    const node = el("td", none ? "num none" : "num", none ? el("span", "none", "0") : count(value));
    node.dataset.label = column.label;
    return node;
  };
  const line = (row) => el("tr", "",
    el("td", "who", el("div", "name", named(row.consumer)), el("div", "small muted", visible(row.route))),
    el("td", "who", el("div", "", named(row.model)), el("div", "small muted", visible(row.backend) || "no backend")),
    ...columns.map((column) => cell(column, row[column.field])));
  const isLong = rows.length > ROWS + 1 && !showsAll;
  const table = el("table", "rows",
    el("thead", "", el("tr", "", ...Object.entries(NAMES).map(([field, label]) => head(field, label)),
      ...columns.map((column) => head(column.field, column.label, "num", column.title)))),
    el("tbody", "", ...(isLong ? sorted(rows).slice(0, ROWS) : sorted(rows)).map(line)));
  if (rows.length > 1) {
    table.append(el("tfoot", "", el("tr", "", el("td", "who", "Total"), el("td", "void"),
      ...columns.map((column) => cell(column, total(rows, column.field))))));
  }
  const all = isLong ? el("button", "", `Show all ${count(rows.length)} rows`) : null;
  if (all) {
    all.type = "button";
    all.addEventListener("click", () => { showsAll = true; showTable(lastUsage); });
  }
  const more = next ? el("span", "", `Only the first ${count(rows.length)} rows are here and in the sums; tollgate usage has all of them.`) : null;
  byId("usage").replaceChildren(...[table, all || more ? el("div", "row small muted", all, more) : null].filter(Boolean));
}

function showUsage(usage, { measure }) {
  lastUsage = usage;
  showSums(usage.rows);
  showMost("by-consumer", "consumer", usage.rows, measure === "tokens" ? tokens : (row) => row.requests);
  showMost("by-model", "model", usage.rows, measure === "tokens" ? tokens : (row) => row.requests);
  showTable(usage);
}

// What may be typed into the filter.
function showNames(series, list) {
  const option = ({ name }) => { const node = el("option"); node.value = name; return node; };
  byId(list).replaceChildren(...series.filter((one) => one.name && !one.names).map(option));
}

