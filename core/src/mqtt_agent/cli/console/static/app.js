// The live page: it gets everything once, then what has changed.
import { follow } from "./ask.js";
import { address, at, clock, filled, having, lease, linked, made, named, pool, presence, seconds, shortId, status } from "./dom.js";
import { detail, place } from "./detail.js";
import { picture } from "./sequence.js";

const MOST = 100, ARROWS = 30, FAULTS = 50, REST = 2;
const lists = { servers: new Map(), tools: new Map(), agents: new Map(), pools: new Map(), calls: new Map(), tasks: new Map() };
const context = { about: {}, lists };
let events = [], faults = [], lines = [];

const wanted = () => at("filter").value.trim().toLowerCase();
const fits = (row) => wanted() === "" || JSON.stringify(row).toLowerCase().includes(wanted());

function table(id, heads, lines, all, count) {
  const head = filled("tr", ...heads.map((each) => made("th", each.replace("-", ""), each.startsWith("-") ? "minor" : "")));
  const shown = lines.slice(0, MOST).map((cells) => {
    const line = made("tr", undefined, cells.group ? "group" : "");
    cells.forEach((cell, place) => {
      const td = filled("td", cell ?? "");
      if (heads[place].startsWith("-")) td.className = "minor";
      line.append(td);
    });
    return line;
  });
  if (lines.length > MOST) {
    const more = made("td", `… and ${lines.length - MOST} more: use the filter`, "muted");
    more.colSpan = heads.length;
    shown.push(filled("tr", more));
  }
  at(id).replaceChildren(...(all.length ? [head] : []), ...shown);
  if (!all.length) at(id).replaceChildren(filled("tr", made("td", "none yet", "muted")));
  at(id + "-count").textContent = all.length ? count : "";
}

const online = (rows) => `${rows.filter((each) => each.status === "online").length} of ${rows.length} online`;
const first = (a, b) => (b.status === "online") - (a.status === "online") || (a.replica ?? a.name).localeCompare(b.replica ?? b.name, undefined, { numeric: true });
const short = (link) => { link.className = "id"; return link; };
const latest = (a, b) => b.begun - a.begun;

function servers() {
  const rows = [...lists.servers.values()], names = new Map();
  for (const row of rows.filter(fits)) names.set(row.name, [...(names.get(row.name) ?? []), row]);
  const lines = [];
  for (const [name, replicas] of [...names].sort()) {
    const up = replicas.filter((each) => each.status === "online").length;
    const group = [filled("span", filled("strong", named(name)), ` ${up} of ${replicas.length} online`), "", String(Math.max(...replicas.map((each) => each.running))),
      "", [...new Set(replicas.flatMap((each) => each.tools))].join(", ")];
    group.group = true;
    lines.push(group);
    for (const each of replicas.sort(first)) {
      const short = each.replica.startsWith(name + ":") ? each.replica.slice(name.length + 1) : each.replica;
      const load = filled("span", `${each.minute}/min, ${each.answered} in all`, each.mean === null ? "" : `, ${seconds(each.mean)} each`,
        each.failed ? made("span", `, ${each.failed} failed`, "fault") : "");
      lines.push([made("span", short, "replica"), presence(each), "", load, ""]);
    }
  }
  table("servers", ["server and replicas", "status", "-running", "load", "-tools"], lines, rows, online(rows));
}

const DRAW = {
  servers,
  tools() {
    const rows = [...lists.tools.values()];
    table("tools", ["tool", "status", "server", "-description"], rows.filter(fits).sort(first).map(
      (each) => [linked("tool", each.name), presence(each), named(each.server), each.description]), rows, online(rows));
  },
  agents() {
    const rows = [...lists.agents.values()];
    table("agents", ["agent", "status", "-description"], rows.filter(fits).sort(first).map(
      (each) => [filled("span", linked("agent", each.name), pool(each)), presence(each), each.description]), rows, online(rows));
  },
  pools() {
    const rows = [...lists.pools.values()], lines = [], told = context.store ?? "";
    at("pools-section").hidden = context.store === null || context.store === undefined;
    at("pools-fault").hidden = told === "";
    at("pools-fault").textContent = told === "" ? "" : `not up to date: ${told}`;
    for (const row of rows.filter(fits)) {
      const live = row.members.filter((each) => each.live).length, all = row.members.reduce((sum, each) => sum + each.count, 0);
      const group = [filled("span", filled("strong", linked("agent", row.name)), ` ${live} of ${row.members.length} online`), "", "", all === 1 ? "1 task" : `${all} tasks`];
      group.group = true;
      lines.push(group, ...row.members.map((each) => [made("span", each.member, "replica"), lease(each), clock(each.joined), having(each)]));
    }
    table("pools", ["pool and members", "status", "-joined", "works on"], lines, rows, `${rows.reduce((sum, each) => sum + each.members.length, 0)} members`);
  },
  tasks() {
    const rows = [...lists.tasks.values()], asking = rows.filter((each) => each.asks).length;
    table("tasks", ["task", "from", "to", "state", "-progress", "-about"], rows.filter(fits).sort((a, b) => b.asks - a.asks || latest(a, b)).map(
      (each) => [short(linked("task", each.id, shortId(each.id))), named(each.sender), filled("span", named(each.to), each.member ? made("span", ` ${each.member}`, "muted") : null),
        each.asks ? linked("task", each.id, "asks a question") : status(each.error || each.state || "unknown", each.state), each.progress, each.title]),
      rows, `${rows.length} seen` + (asking ? `, ${asking} waiting for an answer` : ""));
  },
  calls() {
    const rows = [...lists.calls.values()], running = rows.filter((each) => each.state === "working").length;
    table("calls", ["tool", "client", "state", "took", "-server"], rows.filter(fits).sort(latest).map(
      (each) => [linked("call", each.id, each.tool), named(each.client), status(each.error || each.state, each.state), seconds(each.seconds), named(each.server)]),
      rows, `${rows.length} seen` + (running ? `, ${running} running` : ""));
  },
};

function written(line, brief) {
  const left = ["time", "kind", "topic", "event", "fault", brief ? "payload" : ""];
  const more = Object.entries(line).filter(([key]) => !left.includes(key)).map(([, value]) => value);
  const node = made("li", "", line.fault ? "fault" : "");
  const text = [line.time.slice(11), line.kind, ...more].join("  ");
  if (line.event) {
    const link = made("a", text);
    link.href = address(...line.event.ref.split(/\/(.*)/s));
    node.append(link);
  } else node.textContent = text;
  return node;
}

function show(id, rows, most, brief) {
  at(id).replaceChildren(...rows.filter(fits).slice(-most).reverse().map((each) => written(each, brief)));
}

function sequence() {
  const box = at("sequence"), arrows = events.filter(fits).slice(-ARROWS);
  box.replaceChildren(arrows.length ? picture(arrows, box.clientWidth) : made("p", "nobody has spoken yet", "muted"));
}

DRAW.detail = () => detail(context);
DRAW.messages = () => {
  at("fault-section").hidden = faults.length === 0;
  at("faults-count").textContent = faults.length ? String(faults.length) : "";
  show("faults", faults, FAULTS, true);
  if (at("pause").checked) return;
  show("lines", lines, MOST, false);
  sequence();
};

function add(more) {
  lines = [...lines, ...more].slice(-2 * MOST);
  events = [...events, ...more.filter((each) => each.event).map((each) => ({ ...each.event, fault: each.fault }))].slice(-MOST);
  faults = [...faults, ...more.filter((each) => each.fault)].slice(-FAULTS);
}

function apply(changes) {
  for (const [name, rows] of Object.entries(changes)) {
    for (const [key, row] of Object.entries(rows)) {
      if (row === null) lists[name].delete(key);
      else lists[name].set(key, row);
    }
  }
}

// What has changed is drawn as soon as the browser has shown the last drawing and had a rest. So a busy namespace or a
// slow telephone makes the page later, and never stuck.
const stale = new Set();
let drawing = false, pressed = false;

// A drawing replaces the lines of a table. Between the press and the release of a button, it would take the click away.
addEventListener("pointerdown", () => { pressed = true; }, true);
for (const end of ["pointerup", "pointercancel", "blur"]) {
  addEventListener(end, () => { pressed = false; setTimeout(draw); });
}

function draw(...names) {
  for (const name of names) stale.add(name);
  const open = !at("detail").hidden, now = [...stale].filter((name) => (name === "detail") === open);
  if (drawing || pressed || now.length === 0) return;
  drawing = true;
  const begun = performance.now();
  for (const name of now) { stale.delete(name); DRAW[name](); }
  const rest = () => setTimeout(() => { drawing = false; draw(); }, REST * (performance.now() - begun));
  requestAnimationFrame(() => setTimeout(rest));
}

const everything = () => draw(...Object.keys(lists), "messages");

function concerned(changes) {
  const [kind, name] = place();
  if (kind === "agent" && changes.pools) return true;
  return (kind === "task" || kind === "call") && [...Object.entries(changes[kind + "s"] ?? {})].some(([key, row]) => key === name || row?.id === name);
}

const LINKS = {
  refused: "open the address that mqtt-agent console has printed",
  lost: "the console has lost the broker, and tries to reach it again",
};

function tell(link) {
  at("link").textContent = LINKS[link] ?? link;
  at("link").className = link === "live" ? "online" : "fault";
}

function take(said) {
  if (said.about) {
    context.about = said.about;
    at("place").textContent = `${said.about.namespace} at ${said.about.broker}`;
    for (const each of Object.values(lists)) each.clear();
    events = []; faults = []; lines = [];
  }
  tell(said.broker ? "live" : "lost");
  if (said.store !== context.store) stale.add("pools");
  context.store = said.store;
  apply(said.changes);
  if (said.lines.length) add(said.lines);
  if (said.about) {
    everything();
    detail(context);
    return;
  }
  if (concerned(said.changes)) stale.add("detail");
  draw(...Object.keys(said.changes), ...(said.lines.length ? ["messages"] : []));
}

follow(take, tell);
addEventListener("hashchange", async () => { await detail(context); scrollTo(0, 0); everything(); });
at("filter").oninput = everything;
at("pause").onchange = everything;
addEventListener("resize", everything);
