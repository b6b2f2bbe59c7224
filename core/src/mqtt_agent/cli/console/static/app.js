// Everything that peers have sent goes into the page as text, never as HTML.
const at = (id) => document.getElementById(id);
const MOST = 200;
let about = {}, state = { servers: [], tools: [], agents: [], tasks: [], calls: [] };

function made(tag, text, name) {
  const node = document.createElement(tag);
  if (text !== undefined && text !== null) node.textContent = String(text);
  if (name) node.className = name;
  return node;
}

function linked(kind, name, text) {
  const link = made("a", text ?? name);
  link.title = name;
  link.href = "#" + kind + "/" + encodeURIComponent(name);
  return link;
}

const known = new Set(["online", "offline", "working", "completed", "failed", "rejected", "canceling", "input-required"]);
const status = (word, kind) => made("span", word, known.has(kind ?? word) ? kind ?? word : "");
const clock = (seconds) => new Date(seconds * 1000).toLocaleTimeString();

function fill(id, heads, rows, cells) {
  const head = made("tr");
  heads.forEach((each) => head.append(made("th", each)));
  const lines = rows.slice(0, MOST).map((row) => {
    const line = made("tr");
    cells(row).forEach((cell) => { const td = made("td"); td.append(cell ?? ""); line.append(td); });
    return line;
  });
  at(id).replaceChildren(head, ...lines);
  const online = rows.filter((each) => each.status === "online").length;
  at(id + "-count").textContent = rows.some((each) => each.status) ? `${online} of ${rows.length} online` : rows.length || "";
}

function draw() {
  const first = (a, b) => (b.status === "online") - (a.status === "online");
  fill("servers", ["server", "status", "running", "tools"], [...state.servers].sort(first),
    (each) => [each.replica, status(each.status), String(each.running), each.tools.join(", ")]);
  fill("tools", ["tool", "status", "server", "description"], [...state.tools].sort(first),
    (each) => [linked("tool", each.name), status(each.status), each.server, each.description]);
  fill("agents", ["agent", "status", "description"], [...state.agents].sort(first),
    (each) => [each.name, status(each.status), each.description]);
  fill("tasks", ["task", "from", "to", "state", "progress"], state.tasks,
    (each) => [linked("task", each.id, each.id.slice(0, 8)), each.sender, each.to, status(each.state), each.progress]);
  fill("calls", ["tool", "client", "state", "seconds", "server"], state.calls,
    (each) => [each.tool, each.client, status(each.error || each.state, each.state), each.seconds?.toFixed(2), each.server]);
  if (location.hash.startsWith("#task/")) detail();
}

function written(line) {
  const more = Object.entries(line).filter(([key]) => !["time", "kind", "topic"].includes(key)).map(([, value]) => value);
  const fault = line.error || more.includes("status=error") || more.includes("status=failed");
  return made("li", [line.time.slice(11), line.kind, ...more].join("  "), fault ? "fault" : "");
}

function add(lines) {
  const list = at("lines");
  list.prepend(...lines.map(written).reverse());
  while (list.children.length > MOST) list.lastChild.remove();
}

async function detail() {
  const [kind, name] = location.hash.slice(1).split("/").map(decodeURIComponent);
  const box = at("detail");
  box.hidden = kind !== "tool" && kind !== "task";
  if (kind === "task") {
    const task = state.tasks.find((each) => each.id === name);
    const lines = (task?.events ?? []).map((each) => made("li", `${clock(each.time)}  ${each.what}  ${each.said}`));
    const list = made("ol");
    list.append(...lines);
    const back = made("a", "close");
    back.href = "#";
    box.replaceChildren(made("h2", `Task ${name}`), status(task?.state ?? "not seen since the console was opened"),
      made("pre", task?.prompt ?? ""), list, back);
  } else if (kind === "tool") {
    const answer = await fetch("/tool?name=" + encodeURIComponent(name));
    if (answer.ok) form(box, name, await answer.json());
  }
}

function field(name, schema, required) {
  const label = made("label", name + (required ? " (required) " : " "));
  let input;
  if (Array.isArray(schema.enum)) {
    input = made("select");
    input.append(made("option", ""), ...schema.enum.map((each) => made("option", JSON.stringify(each))));
    input.dataset.kind = "json";
  } else if (schema.type === "boolean") {
    input = made("input");
    input.type = "checkbox";
    input.dataset.kind = "boolean";
  } else if (schema.type === "string") {
    input = made("input");
    input.dataset.kind = "string";
  } else {
    input = made(schema.type === "integer" || schema.type === "number" ? "input" : "textarea");
    input.placeholder = "JSON";
    input.dataset.kind = "json";
  }
  input.name = name;
  label.append(input, made("small", " " + (schema.description ?? "")));
  return label;
}

function form(box, name, tool) {
  const fields = made("form"), properties = tool.schema.properties ?? {}, result = made("pre");
  result.id = "result";
  for (const [each, schema] of Object.entries(properties)) {
    fields.append(field(each, schema ?? {}, (tool.schema.required ?? []).includes(each)));
  }
  const button = made("button", about.writes ? "Call" : "Read-only: start the console with --allow-writes to call");
  button.disabled = !about.writes;
  fields.append(button);
  fields.onsubmit = async (event) => {
    event.preventDefault();
    try {
      const values = {};
      for (const input of fields.elements) {
        if (!input.name) continue;
        const kind = input.dataset.kind;
        if (kind === "boolean") values[input.name] = input.checked;
        else if (input.value !== "") values[input.name] = kind === "string" ? input.value : JSON.parse(input.value);
      }
      result.textContent = "calling ...";
      const answer = await fetch("/call", { method: "POST", headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ tool: name, arguments: values }) });
      const said = await answer.json();
      result.className = said.error ? "fault" : "";
      result.textContent = said.error ?? JSON.stringify(said.result, null, 2);
    } catch (error) {
      result.className = "fault";
      result.textContent = String(error);
    }
  };
  const back = made("a", "close");
  back.href = "#";
  box.replaceChildren(made("h2", name), made("p", tool.description), fields, result, back);
}

const events = new EventSource("/events");
events.onopen = () => { at("link").textContent = "live"; at("lines").replaceChildren(); };
events.onerror = () => { at("link").textContent = "not connected"; };
events.onmessage = (event) => {
  const said = JSON.parse(event.data);
  if (said.about) {
    about = said.about;
    at("place").textContent = `${about.namespace} at ${about.broker}`;
  }
  state = said.state;
  draw();
  add(said.lines);
  if (said.about) detail();
};
addEventListener("hashchange", detail);
