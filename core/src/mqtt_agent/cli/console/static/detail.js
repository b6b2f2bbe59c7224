// The page of one tool, agent, task or call.
import { ask } from "./ask.js";
import { at, clock, filled, having, lease, linked, made, pool, presence, seconds, shortId, status } from "./dom.js";
import { form, send } from "./forms.js";
import { picture } from "./sequence.js";

const READ_ONLY = "Read-only: start the console with --allow-writes";
let shown = "", parts = {};

export function place() {
  const [kind, ...rest] = location.hash.slice(1).split("/");
  try {
    return [kind, decodeURIComponent(rest.join("/"))];
  } catch {
    return ["", ""];
  }
}

// What is known of something: null when nothing is known, undefined when the console cannot be asked. The head of the page
// then says that it is not connected.
async function read(kind, name) {
  try {
    const answer = await ask(`/${kind}?name=${encodeURIComponent(name)}`);
    return answer.ok ? await answer.json() : answer.status === 403 ? undefined : null;
  } catch {
    return undefined;
  }
}

function head(title, ...more) {
  const back = made("a", "← back");
  back.href = "#";
  return filled("div", back, made("h2", title), ...more);
}

function share() {
  const button = made("button", "Copy the link"), link = location.href;
  button.type = "button";
  button.onclick = async () => {
    try {
      await navigator.clipboard.writeText(link);
      button.textContent = "Copied";
    } catch {
      button.replaceWith(made("code", link));
    }
  };
  return button;
}

async function toolPage(box, name, context) {
  const tool = await read("tool", name);
  if (tool === undefined) return;
  if (tool === null) return box.replaceChildren(head(name), made("p", "No such tool has been seen."));
  const [fields, said] = form(tool.schema ?? {}, "Call", async (values) => {
    const answer = await send("call", { tool: name, arguments: values });
    return JSON.stringify(answer.result, null, 2);
  }, context.about.own ? "" : READ_ONLY);
  said.id = "result";
  const row = context.lists.tools.get(name);
  box.replaceChildren(head(name, row ? presence(row) : null, " ", made("span", row ? `server ${row.server}` : "", "muted")),
    made("p", tool.description), fields, said, filled("details", made("summary", "schema"), made("pre", JSON.stringify(tool.schema, null, 2))));
}

function members(row, found) {
  if (!found) return row?.pool ? [made("p", "To see its members and who has which task, start the console with --store.", "muted")] : [];
  return [made("h3", "Members"), filled("ol", ...found.members.map((each) => filled("li", each.member, " ", lease(each), " ", having(each))))];
}

function agentPage(box, name, context) {
  const row = context.lists.agents.get(name), key = `agent/${name}`, found = context.lists.pools.get(name);
  if (shown === key && parts.about === context.about && parts.members?.isConnected) { // a person may be writing a prompt
    return parts.members.replaceChildren(...members(row, found));
  }
  shown = key;
  parts = { about: context.about, members: filled("div", ...members(row, found)) };
  parts.members.className = "members";
  const schema = { properties: { prompt: { type: "string", long: true }, data: { description: "optional JSON for the agent" } }, required: ["prompt"] };
  const [fields, said] = form(schema, "Give the task", async (values) => {
    const answer = await send("delegate", { agent: name, ...values });
    location.hash = "task/" + encodeURIComponent(answer.task_id);
    return "the task is given";
  }, context.about.own ? "" : READ_ONLY);
  const tasks = [...context.lists.tasks.values()].filter((each) => each.to === name).slice(-20).reverse();
  const list = filled("ol", ...tasks.map((each) => filled("li", linked("task", each.id, shortId(each.id)), " ", status(each.state), " ", each.title ?? "")));
  box.replaceChildren(head(name, row ? presence(row) : made("span", "not seen", "muted"), row ? pool(row) : null), made("p", row?.description ?? ""),
    made("p", (row?.capabilities ?? []).join(", "), "muted"), parts.members, fields, said, list);
}

// A question that has another schema than an object gets one field.
function answerForm(task) {
  const question = task.question, schema = question.schema ?? { type: "string" };
  const asObject = schema.type === "object" && schema.properties;
  const given = asObject ? schema : { properties: { answer: schema }, required: ["answer"] };
  const [fields, said] = form(given, "Answer", async (values) => {
    await send("answer", { task_id: task.id, input_id: question.input_id, value: asObject ? values : values.answer });
    return "the answer is sent";
  });
  return filled("div", made("p", question.text ?? "The console shows questions with --payloads.", "question"),
    question.fault ? made("p", question.fault, "fault") : null, fields, said);
}

function cancelButton(task) {
  const button = made("button", "Cancel the task"), said = made("span", "", "muted");
  button.type = "button";
  button.onclick = async () => {
    button.disabled = true;
    try {
      await send("cancel", { task_id: task.id });
      said.textContent = " the agent is told";
    } catch (error) {
      button.disabled = false;
      said.className = "fault";
      said.textContent = " " + error.message;
    }
  };
  return filled("div", button, said);
}

function whatToDo(task, context) {
  const over = ["completed", "failed", "rejected", "canceled"].includes(task.state);
  if (over) return [];
  if (!context.about.own) return task.question ? [made("p", task.question.text ?? "", "question"), made("p", READ_ONLY + " to answer.", "muted")] : [];
  if (task.sender !== context.about.own) {
    const why = `Only ${task.sender || "the agent that gave this task"} can answer or cancel it, for example with mqtt-agent answer or cancel.`;
    return [task.question ? made("p", task.question.text ?? "", "question") : "", made("p", why, "muted")];
  }
  return [task.question ? answerForm(task) : "", cancelButton(task)];
}

function facts(kind, item) {
  const rows = kind === "task"
    ? [["from", item.sender], ["to", item.to], ["member", item.member], ["progress", item.progress]]
    : [["tool", item.tool], ["client", item.client], ["server", item.server], ["partial results", item.partials]];
  rows.push(["begun", clock(item.begun)], ["took", seconds(item.seconds)], ["error", item.error]);
  const list = made("dl");
  for (const [name, value] of rows) if (value) list.append(made("dt", name), made("dd", value));
  return list;
}

function texts(item) {
  const nodes = [];
  for (const [title, text] of [["prompt", item.prompt], ["arguments", item.arguments], ["result", item.result]]) {
    if (text) nodes.push(made("h3", title), made("pre", text, title === "result" && (item.state === "failed" || item.error) ? "fault" : ""));
  }
  return nodes;
}

async function workPage(box, kind, name, context) {
  const item = await read(kind, name), key = `${kind}/${name}`;
  if (item === undefined || place().join("/") !== key) return; // the person has gone on meanwhile
  if (item === null) return box.replaceChildren(head(name), made("p", "Not seen since the console was started."));
  if (shown !== key || !parts.head?.isConnected) {
    shown = key;
    parts = { head: made("div"), ask: made("div", undefined, "ask"), body: made("div") };
    parts.asked = "";
    box.replaceChildren(parts.head, parts.ask, parts.body);
    parts.share = share();
  }
  parts.head.replaceChildren(head(kind === "task" ? `Task ${name}` : `Call of ${item.tool}`, status(item.error || item.state, item.state), " ", parts.share), facts(kind, item));
  const asked = JSON.stringify([item.question ?? null, item.state === "input-required", ["completed", "failed", "rejected", "canceled"].includes(item.state)]);
  if (kind === "task" && parts.asked !== asked) { // only then: a person may be writing an answer
    parts.asked = asked;
    parts.ask.replaceChildren(...whatToDo(item, context));
  }
  const lines = item.events.map((each) => {
    const line = made("li", `${clock(each.time)}  ${each.from} → ${each.to}  ${each.what}  ${each.said}`, each.fault ? "fault" : "");
    return line;
  });
  if (item.left_out) lines.splice(20, 0, made("li", `… ${item.left_out} events are left out …`, "muted"));
  parts.body.replaceChildren(...texts(item), made("h3", "What happened"), filled("ol", ...lines),
    picture(item.events.slice(-60), box.clientWidth - 26));
}

export async function detail(context) {
  const [kind, name] = place(), box = at("detail"), pages = ["tool", "agent", "task", "call"];
  const open = pages.includes(kind) && name !== "";
  box.hidden = !open;
  document.body.classList.toggle("one", open);
  if (!open) {
    shown = "";
    box.replaceChildren();
  } else if (kind === "tool") await toolPage(box, name, context);
  else if (kind === "agent") agentPage(box, name, context);
  else await workPage(box, kind, name, context);
}
