// Budgets, each with how full it is.
// === time ===

function until(iso) {
  const minutes = Math.max(0, Math.ceil((Date.parse(iso) - Date.now()) / 60000));
  const [days, hours] = [Math.floor(minutes / 1440), Math.floor((minutes % 1440) / 60)];
  if (days > 1) return `${days} days`;
  if (days === 1) return hours ? `1 day ${hours} h` : "1 day";
  return hours ? `${hours} h ${minutes % 60} min` : `${minutes} min`;
}

// === budgets ===

function budgetName(row) {
  const parts = Object.entries(row.scope).map(([part, value]) => {
    if (part.startsWith("Label/")) return `${part.slice(6)}=${visible(value)}`;
    return value === "" ? `no ${part.toLowerCase()}` : visible(value);
  });
  return parts.length ? parts.join(" · ") : "everyone";
}

function budget(row) {
  const left = row.tokens - row.spent - row.leased;
  const whole = Math.max(row.tokens, row.spent + row.leased, 1);
  const used = row.tokens ? row.spent / row.tokens : 1;
  const notes = [row.leased ? `${count(row.leased)} leased` : null];
  let note = el("span", "", `${count(Math.max(0, left))} left`);
  const isNear = used > 0.8 && used < 1;
  if (row.spent > row.tokens) note = el("span", "bad", `over by ${count(row.spent - row.tokens)}`);
  else if (row.spent === row.tokens) note = el("span", "bad", "used up");
  else if (isNear) note = el("span", "warn", `over 80 %, ${count(Math.max(0, left))} left`);
  const bar = el("div", `bar ${used >= 1 ? "over" : isNear ? "near" : ""}`, el("i"), el("i"));
  const width = (tokens) => (tokens ? `max(2px, ${(100 * tokens) / whole}%)` : "0");
  bar.children[0].style.width = width(row.spent);
  bar.children[1].style.width = width(row.leased);
  bar.setAttribute("role", "img");
  bar.setAttribute("aria-label", `${Math.round(100 * used)} percent spent`);
  const detail = el("span", "small muted", notes.filter(Boolean).join(" · "), notes[0] ? " · " : "", note);
  return el("div", "budget",
    el("div", "line",
      el("span", "name", budgetName(row)),
      el("span", "", count(row.spent), el("span", "muted", ` of ${count(row.tokens)}`))),
    bar,
    el("div", "line", el("span", "small muted", used ? `${(100 * used).toFixed(used < 0.1 ? 1 : 0)} %` : ""), detail));
}

function budgetGroup(key, rows) {
  const first = rows[0];
  rows.sort((a, b) => b.spent / (b.tokens || 1) - a.spent / (a.tokens || 1) || budgetName(a).localeCompare(budgetName(b)));
  const all = expanded.has(key) || rows.length <= FIRST + 1;
  const reset = first.window_end ? titled(el("span", "", `resets in ${until(first.window_end)}`), new Date(first.window_end).toLocaleString()) : "never resets";
  const group = el("div", "group",
    el("div", "head",
      el("h3", "", `${first.policy} / ${first.limit}`),
      el("span", "small muted", first.mode === "Shadow" ? "shadow, counts only · " : "", reset)),
    ...rows.slice(0, all ? rows.length : FIRST).map(budget));
  if (!all) {
    const more = el("button", "more", `Show all ${count(rows.length)}`);
    more.type = "button";
    more.addEventListener("click", () => { expanded.add(key); delete shown.budgets; refresh(); });
    group.append(more);
  }
  return group;
}

function showBudgets({ rows, next }) {
  const groups = new Map();
  for (const row of rows) {
    const key = JSON.stringify([row.policy, row.limit]);
    groups.set(key, [...(groups.get(key) ?? []), row]);
  }
  byId("key").hidden = !groups.size;
  const empty = el("div", "empty", "No budget has been used in its current window. TokenPolicies say what requests may cost.");
  const more = next ? [el("div", "row small muted", `The first ${count(rows.length)} budgets; /api/budgets has all of them, in pages.`)] : [];
  byId("budgets").replaceChildren(...(groups.size ? [...groups].map(([key, rows]) => budgetGroup(key, rows)) : [empty]), ...more);
}

