// The page: one time that everything follows, one thing that is picked, and what people do with mouse, fingers and keys.

import { rampCss, COLOURS } from "./colours.js";
import { act, link, listen, node, Sky } from "./data.js";
import { Globe } from "./globe.js";
import { clockText, details, log } from "./panel.js";
import { Topology } from "./topology.js";

const $ = (id) => document.getElementById(id);
const NOTHING = { nodes: [], link: null }, LOOK_AGAIN_MS = 1000, SCHEME_MS = 200, MANY = 1000; // of very many nodes the scheme is drawn once a second
let sky, globe, scheme, t = 0, playing = false, following = false, now_s = 0, rate = 0, heard_ms = 0, picked = NOTHING, wall_ms = 0, faults = { links: new Set(), nodes: new Set() };
let drawn_ms = -1e9, asked_ms = 0, faultsOf = "", drawnOf = "";

async function begin() {
  sky = await Sky.fetch();
  const { about } = sky;
  document.title = `${about.title} · isl-emu`;
  $("title").textContent = about.title;
  $("kind").textContent = { plan: "plan", run: "run", live: "live" }[about.kind];
  $("clock").textContent = about.clock ? `${about.clock} time` : "";
  verdict(about.valid);
  $("slider").max = about.duration_s;
  $("names").replaceChildren(...about.nodes.slice(0, 5000).map((one) => Object.assign(document.createElement("option"), { value: one.name })));
  globe = new Globe($("globe"), $("labels"), sky);
  scheme = new Topology($("topology"), sky);
  $("colour").disabled = !sky.load && about.kind !== "live";
  $("acts").hidden = !about.buttons;
  legend();
  if (about.kind === "live") {
    following = true; $("follow").hidden = false;
    listen(hear, () => { say("the run is over: reload to see it whole"); rate = 0; });
  } else {
    listen((event) => { if (event.type !== "hello" && event.type !== "clock") sky.add(event); }, () => {});
    play(about.kind === "run");
  }
  requestAnimationFrame(frame);
}

function hear(event) {
  if (event.type === "hello" || event.type === "clock") { now_s = event.now_s; rate = event.rate ?? 0; heard_ms = performance.now(); }
  else { sky.add(event); if (event.type === "verdict") verdict(event.valid); }
}

function verdict(valid) {
  $("verdict").hidden = valid === null || valid === undefined;
  $("verdict").textContent = valid ? "VALID" : "INVALID";
  $("verdict").className = `badge ${valid ? "good" : "bad"}`;
}

function frame(ms) {
  const passed_s = wall_ms ? Math.min((ms - wall_ms) / 1000, 0.5) : 0;
  wall_ms = ms;
  if (following) t = Math.min(now_s + rate * Math.min((performance.now() - heard_ms) / 1000, 1), sky.about.duration_s);
  else if (playing) { t += passed_s * Number($("speed").value); if (t >= sky.about.duration_s) { t = sky.about.duration_s; play(false); } }
  const key = `${t.toFixed(3)} ${sky.events.length}`;
  if (key !== faultsOf) { faults = sky.faultsAt(t); faultsOf = key; }
  const wishes = { colour: $("colour").value, cones: $("cones").checked, night: $("night").checked, spin: $("spin").checked, picked, faults, wall_s: ms / 1000 };
  const shown = JSON.stringify([t, sky.events.length, wishes.colour, wishes.cones, wishes.night, wishes.spin, picked, globe.eye(), innerWidth, innerHeight]);
  if (shown !== drawnOf || globe.travelling) { globe.draw(t, wishes); drawnOf = shown; } // a page that stands costs a run nothing
  if (ms - drawn_ms > SCHEME_MS * (sky.about.nodes.length > MANY ? 5 : 1)) { // what changes in steps is not drawn sixty times a second
    drawn_ms = ms;
    scheme.draw(t, wishes);
    log($("log"), sky.events, t, seek);
    if (document.activeElement !== $("slider") || playing || following) $("slider").value = t;
    $("time").textContent = `${clockText(t)} · ${new Date(Date.parse(sky.about.start_utc) + t * 1000).toISOString().slice(0, 19).replace("T", " ")} UTC`;
  }
  if (ms - asked_ms > LOOK_AGAIN_MS && (playing || following)) tell(ms);
  requestAnimationFrame(frame);
}

function play(on) {
  playing = on; following = following && !on;
  $("play").textContent = on ? "❚❚" : "▶"; $("play").setAttribute("aria-label", on ? "Pause" : "Play");
}

function seek(to) { t = Math.min(Math.max(to, 0), sky.about.duration_s); following = false; drawn_ms = -1e9; tell(); }

function pick(found) {
  if (found.node !== undefined) picked = { nodes: [found.node], link: null };
  else if (found.link !== undefined) { const { a, b } = sky.about.links[found.link]; picked = { nodes: [a, b], link: found.link }; }
  else picked = NOTHING;
  drawn_ms = -1e9; tell();
}

async function tell(ms = performance.now()) { // the numbers of what is picked, at the time that is shown
  asked_ms = ms;
  const asked = picked;
  if (!asked.nodes.length) return;
  try {
    const found = asked.link !== null ? await link(...asked.nodes, t) : await node(asked.nodes[0], t);
    if (asked === picked) details($("details"), found, t, sky.about.duration_s);
  } catch (error) { $("details").textContent = error.message; }
}

function find(text) {
  const names = text.split(/[\s,]+|\s-\s/).filter((one) => one && one !== "-").map((one) => sky.index.get(one) ?? sky.about.nodes.findIndex((other) => other.name.includes(one)));
  if (!names.length || names.includes(-1)) return say(`there is no node like ${text}`);
  const l = names.length > 1 ? sky.linkOf(names[0], names[1]) : undefined;
  if (names.length > 1 && l === undefined) return say("the plan never links these two");
  pick(l !== undefined ? { link: l } : { node: names[0] });
  globe.show(names[0]);
}

function say(text) { $("said").textContent = text; if ($("acts").hidden) $("details").textContent = text; }

function legend() {
  const tones = COLOURS(globe.dark), load = $("colour").value === "load";
  const rows = load ? [["", "load 0 to 100 %", rampCss()]] : [["", "laser", tones.laser], ["", "ground link", tones.ground]];
  rows.push(["", "fault", tones.fault], ["dot", "serves a model", tones.server], ["dot", "question on its way", tones.question], ["dot", "transfer", tones.transfer]);
  $("legend").replaceChildren(...rows.map(([kind, text, tone]) => {
    const row = document.createElement("li"), mark = document.createElement("i");
    mark.className = kind; mark.style.background = tone; row.append(mark, text);
    return row;
  }));
}

function clicks(canvas, picture) { // a click, and no turn of the globe
  let down = null;
  canvas.addEventListener("pointerdown", (event) => { down = [event.offsetX, event.offsetY]; });
  canvas.addEventListener("pointerup", (event) => { if (down && Math.hypot(event.offsetX - down[0], event.offsetY - down[1]) < 5) pick(picture().pick(event.offsetX, event.offsetY)); });
}

$("play").onclick = () => { if (!playing && t >= sky.about.duration_s) t = 0; play(!playing); };
$("slider").oninput = () => { play(false); seek(Number($("slider").value)); };
$("follow").onclick = () => { play(false); following = true; };
$("colour").onchange = legend;
$("search-form").onsubmit = (event) => { event.preventDefault(); find($("search").value); };
clicks($("globe"), () => globe); clicks($("topology"), () => scheme);
for (const button of document.querySelectorAll("[data-act]")) button.onclick = async () => {
  const verb = button.dataset.act, names = picked.nodes.map((i) => sky.about.nodes[i].name);
  if ((verb === "fault" || verb === "capture") && !names.length) return say("pick a node or a link first");
  say(`${verb} ...`);
  const { ok, text } = await act(verb, ["fault", "restore", "capture"].includes(verb) ? names : []);
  say(text.trim() || (ok ? "done" : "it failed"));
};
addEventListener("keydown", (event) => {
  if (event.target instanceof HTMLInputElement && event.target.type !== "range" && event.target.type !== "checkbox") return;
  const step = sky ? sky.about.step_s : 1, turns = { ArrowRight: [0.1, 0], ArrowLeft: [-0.1, 0], ArrowUp: [0, -0.1], ArrowDown: [0, 0.1] };
  if (event.target === $("globe") && globe && turns[event.key]) { event.preventDefault(); return globe.turn(...turns[event.key], 1); }
  if (globe && (event.key === "+" || event.key === "-")) return globe.turn(0, 0, event.key === "+" ? 0.9 : 1 / 0.9);
  const does = { " ": () => $("play").click(), ArrowRight: () => seek(t + step), ArrowLeft: () => seek(t - step), "/": () => $("search").focus(), Escape: () => pick({}), l: () => $("follow").click() }[event.key];
  if (does && !(event.target instanceof HTMLButtonElement && event.key === " ")) { event.preventDefault(); does(); }
});

// What a program that looks at the page may ask.
globalThis.islEmuView = { get state() { return { t, playing, following, picked, frames: globe?.frames ?? 0, lines: globe?.lines.length ?? 0, travelling: globe?.travelling ?? 0, faulty: faults.links.size, events: sky?.events.length ?? 0 }; }, get nodes() { return sky.about.nodes.length; }, journeys: () => sky.journeys().map((one) => ({ ...one, path: one.path.map((i) => sky.about.nodes[i].name) })), place: (name) => { const i = sky.index.get(name); return [...sky.place.subarray(3 * i, 3 * i + 3)]; }, on: (name) => globe.project(sky.index.get(name)), seek: (to) => { play(false); seek(to); }, find };

begin().catch((error) => { $("details").textContent = error.message; });
