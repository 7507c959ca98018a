// What is beside the pictures: the numbers of what was picked with their time series, and the last events.

const SVG = "http://www.w3.org/2000/svg", WIDTH = 260, HEIGHT = 46, SHOWN = 40;

export function clockText(s) {
  const sign = s < 0 ? "-" : "", whole = Math.abs(s), h = Math.floor(whole / 3600), m = Math.floor(whole / 60) % 60, rest = whole % 60;
  return `${sign}${h ? `${h}:${String(m).padStart(2, "0")}` : m}:${String(Math.floor(rest)).padStart(2, "0")}`;
}

function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function drawn(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function number(value) {
  return Math.abs(value) >= 1000 ? Math.round(value).toLocaleString("en") : Number(value.toPrecision(4)).toString();
}

function chart({ label, unit, t_s, v }, t, duration_s) { // gaps stay gaps
  const known = v.filter((one) => one !== null), figure = element("figure", undefined, { class: "series" });
  if (!known.length) return figure;
  const low = Math.min(0, ...known), high = Math.max(...known, low + 1e-9), last = duration_s;
  const x = (at) => (at / last) * WIDTH, y = (one) => HEIGHT - 3 - ((one - low) / (high - low)) * (HEIGHT - 6);
  const caption = element("figcaption");
  caption.append(element("span", label), element("span", `up to ${number(Math.max(...known))} ${unit}`));
  const svg = drawn("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": `${label} over time, ${number(Math.min(...known))} to ${number(Math.max(...known))} ${unit}` });
  let path = "", broken = true;
  v.forEach((one, i) => { if (one === null) { broken = true; return; } path += `${broken ? "M" : "L"}${x(t_s[i]).toFixed(1)} ${y(one).toFixed(1)}`; broken = false; });
  svg.append(drawn("path", { d: path, fill: "none", stroke: "var(--link)", "stroke-width": 1.6, "vector-effect": "non-scaling-stroke" }));
  svg.append(drawn("line", { x1: x(t), x2: x(t), y1: 0, y2: HEIGHT, stroke: "var(--hot)", "vector-effect": "non-scaling-stroke" }));
  figure.append(caption, svg);
  return figure;
}

export function details(target, found, t, duration_s) {
  target.replaceChildren(element("h3", found.name));
  const list = element("dl");
  for (const { label, value } of found.figures) list.append(element("dt", label), element("dd", String(value)));
  target.append(list, ...found.series.map((one) => chart(one, t, duration_s)));
}

function sentence(event) {
  switch (event.type) {
    case "question": return event.phase === "asked" || event.phase === "routed" ? `${event.from} asks ${event.to ?? ""}${event.text ? `: “${event.text}”` : ""}` : event.phase === "done" ? `${event.from} has its answer${event.answer ? `: “${event.answer.slice(0, 160)}”` : ""}` : event.phase === "failed" ? `a question of ${event.from} failed` : null;
    case "transfer": return `${event.kind} ${event.from} → ${event.to} ${event.phase}`;
    case "server": return `${event.node}: ${event.state ?? ""}${event.queue ? `, ${event.queue} wait` : ""}`;
    case "fault": return `${event.phase === "struck" ? "fault" : "mended"}: ${event.what}${event.intervention ? " (by hand)" : ` (${event.how})`}`;
    case "verdict": return event.text;
    default: return null;
  }
}

export function log(target, events, t, seek) { // the last ones before a time
  const found = [];
  for (let i = events.length - 1; i >= 0 && found.length < SHOWN; i--) {
    if (events[i].t_s > t) continue;
    const text = sentence(events[i]);
    if (text) found.push([events[i], text]);
  }
  const key = found.map(([event, text]) => event.t_s + text).join();
  if (target.dataset.key === key) return;
  target.dataset.key = key;
  target.replaceChildren(...found.map(([event, text]) => {
    const row = element("li", undefined, event.type === "fault" ? { class: "fault" } : {}), when = element("time", clockText(event.t_s));
    when.onclick = () => seek(event.t_s);
    row.append(when, text);
    return row;
  }));
}
