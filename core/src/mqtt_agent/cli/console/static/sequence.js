// The picture of who talks to whom: one lane for each name, one arrow for each message, the newest at the bottom.
import { clock, cut, drawn } from "./dom.js";

const ROW = 24, TOP = 34, GUTTER = 74, NARROW = 500, OTHERS = "others";

// The names that speak most get lanes of their own, in the order in which they first speak.
function lanesOf(events, most) {
  const counts = new Map();
  for (const each of events) for (const name of [each.from, each.to]) counts.set(name, (counts.get(name) ?? 0) + 1);
  const names = [...counts.keys()];
  if (names.length <= most) return names;
  const loudest = new Set([...names].sort((a, b) => counts.get(b) - counts.get(a)).slice(0, most - 1));
  return [...names.filter((name) => loudest.has(name)), OTHERS];
}

export function picture(events, width) {
  const gutter = width < NARROW ? 0 : GUTTER, lane = width < NARROW ? 86 : 130;
  const lanes = lanesOf(events, Math.max(2, Math.floor((width - gutter) / lane)));
  const step = Math.min(260, (width - gutter) / Math.max(1, lanes.length)), height = TOP + events.length * ROW + 8;
  const svg = drawn("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": "who talks to whom" });
  const middle = (name) => gutter + (Math.max(0, lanes.indexOf(lanes.includes(name) ? name : OTHERS)) + 0.5) * step;
  for (const name of lanes) {
    const label = drawn("text", { x: middle(name), y: 14, class: "lane" }, cut(name, Math.floor(step / 8)));
    label.append(drawn("title", {}, name));
    svg.append(label, drawn("line", { x1: middle(name), x2: middle(name), y1: 20, y2: height, class: "life" }));
  }
  events.forEach((each, place) => {
    const y = TOP + place * ROW + 12, from = middle(each.from), to = middle(each.to);
    const group = drawn("g", { class: each.fault ? "arrow fault" : "arrow" });
    if (gutter && each.time) group.append(drawn("text", { x: 0, y, class: "time" }, clock(each.time)));
    if (from === to) {
      group.append(drawn("path", { d: `M ${from} ${y - 6} h -16 v 8 h 10`, class: "loop" }));
      group.append(drawn("text", { x: from - 22, y: y + 2, class: "left" }, cut(each.what, Math.floor((Math.min(step, from - gutter) - 24) / 7))));
    } else {
      const back = to > from ? -7 : 7;
      group.append(drawn("line", { x1: from, x2: to, y1: y, y2: y }));
      group.append(drawn("path", { d: `M ${to} ${y} l ${back} -4 v 8 z` }));
      group.append(drawn("text", { x: (from + to) / 2, y: y - 4, class: "what" }, cut(each.what, Math.floor(Math.abs(to - from) / 7))));
    }
    group.append(drawn("title", {}, `${each.from} to ${each.to}: ${each.what}`));
    svg.append(group);
  });
  return svg;
}
