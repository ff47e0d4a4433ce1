// What is wrong, and the Gateways with their proxies.

function finding(found) {
  const origin = found.origin ? `${found.origin.kind} ${found.origin.namespace}/${found.origin.name}` : "";
  const where = found.spot ? `${found.spot.file}:${found.spot.line}` : origin;
  const about = [found.spot ? origin : "", found.field].filter(Boolean).join(" · ");
  return el("div", "row",
    el("div", "line", el("span", "mono", where), el("span", `small ${found.severity === "error" ? "bad" : "warn"}`, found.severity)),
    el("p", "", found.message),
    about || found.hint ? el("p", "small muted", [about, found.hint].filter(Boolean).join(" — ")) : null);
}

function proxy(row) {
  const state = !row.connected ? ["muted", "not connected"]
    : row.nacks.length ? ["bad", `refuses ${few(row.nacks.length, "resource", "resources")}`]
    : row.acked ? ["good", "up to date"] : ["warn", "updating"];
  return el("div", "proxy",
    el("div", "line", el("span", "mono", row.node), el("span", `small state ${state[0]}`, state[1])),
    ...row.nacks.map((nack) => el("p", "small", el("span", "bad", nack.resource), " ", el("span", "mono muted", nack.message))));
}

function gateway(row) {
  const listeners = row.listeners.map((listener) => `${listener.name} ${listener.protocol} ${listener.address}`).join(" · ");
  return el("div", "row",
    el("div", "line", el("span", "name", row.name),
      el("span", `small state ${row.programmed ? "good" : "warn"}`, row.programmed ? "programmed" : "not programmed")),
    el("p", "small muted", listeners || "no listener"),
    ...(row.proxies.length ? row.proxies.map(proxy) : [el("p", "small muted", "No Envoy has connected.")]));
}

function showStatus(status) {
  const ready = byId("ready");
  ready.className = `small state ${status.ready ? "good" : "warn"}`;
  ready.textContent = status.ready ? "Ready" : "Not ready";
  byId("generation").textContent = status.generation ? `configuration ${count(status.generation)}` : "";
  const reasons = status.ready ? [] : status.waiting_for;
  byId("gateways").replaceChildren(
    ...reasons.map((reason) => el("div", "row warn", reason)),
    ...status.gateways.map(gateway),
    ...(status.gateways.length || reasons.length ? [] : [el("div", "empty", "No Gateway is configured.")]));
  const errors = status.findings.filter((found) => found.severity === "error").length;
  const warnings = status.findings.length - errors;
  byId("findings-section").hidden = !status.findings.length;
  byId("findings-count").textContent =
    [errors ? few(errors, "error", "errors") : "", warnings ? few(warnings, "warning", "warnings") : ""].filter(Boolean).join(", ");
  byId("findings").replaceChildren(...status.findings.map(finding));
}

