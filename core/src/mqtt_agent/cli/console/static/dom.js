// Makes the elements of the page. Everything that peers have sent goes into the page as text, never as HTML.
export const at = (id) => document.getElementById(id);

export function made(tag, text, name) {
  const node = document.createElement(tag);
  if (text !== undefined && text !== null) node.textContent = String(text);
  if (name) node.className = name;
  return node;
}

export function filled(tag, ...parts) {
  const node = made(tag);
  node.append(...parts.filter((each) => each !== null && each !== undefined));
  return node;
}

export function drawn(tag, attributes, text) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, String(value));
  if (text !== undefined) node.textContent = String(text);
  return node;
}

const NAME = 60;

// A name in a list. A long one is cut, and shown whole when the pointer rests on it.
export function named(name) {
  const node = made("span", cut(String(name ?? ""), NAME));
  node.title = name ?? "";
  return node;
}

// The id of a task in a list. Ids begin with the time, so those of the same minute differ at their end.
export const shortId = (id) => id.length > 12 ? "…" + id.slice(-8) : id;

export const address = (kind, name) => "#" + kind + "/" + encodeURIComponent(name);

export function linked(kind, name, text) {
  const link = made("a", cut(String(text ?? name), NAME));
  link.title = name;
  link.href = address(kind, name);
  return link;
}

const KNOWN = new Set(["online", "offline", "on standby", "submitted", "working", "completed", "failed", "rejected", "canceled",
  "canceling", "input-required"]);

// A word in the color of a state. What a peer made up has no color.
export function status(word, kind) {
  const known = kind ?? word;
  return made("span", word, "state " + (KNOWN.has(known) ? known.replace(" ", "-") : ""));
}

export const presence = (row) => row.lost && row.status === "offline" ? status("offline, connection lost", "failed") : status(row.status);
// The tasks of a pool's member. The store knows them, also those that the console has not seen.
export const having = (each) => filled("span", ...each.tasks.flatMap((task, place) => [place ? ", " : "", linked("task", task.id, shortId(task.id)), " ", status(task.state)]),
  each.count > each.tasks.length ? made("span", ` and ${each.count - each.tasks.length} more`, "muted") : null);
export const lease = (each) => each.live ? status("online") : status("lease ended", "failed");
export const pool = (row) => row.pool ? made("span", " pool", "muted") : null;
export const clock = (seconds) => new Date(seconds * 1000).toLocaleTimeString("en-GB");
const WIDE = /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Hangul}\p{Extended_Pictographic}\u3000-\u303f\uff01-\uff60]/u;

// A text that takes at most so many columns: a character of Chinese, Japanese or Korean and an emoji take two.
export function cut(text, most) {
  let columns = 0, short = "";
  for (const each of text) {
    columns += WIDE.test(each) ? 2 : 1;
    if (columns > most) return short + "…";
    if (columns < most) short += each;
  }
  return text;
}
export const seconds = (number) => number === undefined || number === null ? "" : number < 10 ? number.toFixed(2) + " s" : Math.round(number) + " s";
