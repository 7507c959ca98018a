// What is shown: fetched once, and asked for a time. docs/stream.md describes what the server answers.

const TOKEN = new URLSearchParams(location.search).get("token") || "";

export const address = (path, more = {}) => `${path}?${new URLSearchParams({ token: TOKEN, ...more })}`;

async function get(path, more) {
  const answer = await fetch(address(path, more));
  if (!answer.ok) throw new Error(await answer.text());
  return answer;
}
const json = async (path, more) => (await get(path, more)).json();
const floats = async (path) => new Float32Array(await (await get(path)).arrayBuffer());

export const node = (i, t) => json("node", { i, t });
export const link = (a, b, t) => json("link", { a, b, t });

export async function act(verb, names) {
  const answer = await fetch(address("act"), {
    method: "POST", headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ verb, a: names[0] ?? null, b: names[1] ?? null }),
  });
  return answer.ok ? answer.json() : { ok: false, text: await answer.text() };
}

export class Sky {
  static async fetch() {
    const sky = new Sky();
    [sky.about, sky.positions, sky.sun, sky.states] = await Promise.all([
      json("sky.json"), floats("positions.f32"), floats("sun.f32"), json("states.json").then((found) => found.links),
    ]);
    sky.load = sky.about.load ? await floats("load.f32") : null;
    const { nodes, links } = sky.about;
    sky.index = new Map(nodes.map((one, i) => [one.name, i]));
    sky.numberOf = new Map(links.map((one, l) => [`${one.a} ${one.b}`, l]));
    sky.place = new Float32Array(3 * nodes.length); // of all nodes now, Earth-fixed, km
    sky.events = []; sky.faults = []; // both in order of time
    sky.busy = new Map(); // direction -> load, as a live run said last
    sky._at = new Int32Array(links.length);
    return sky;
  }

  linkOf(a, b) {
    return this.numberOf.get(`${Math.min(a, b)} ${Math.max(a, b)}`) ?? this.numberOf.get(`${Math.max(a, b)} ${Math.min(a, b)}`);
  }

  sample(t) { // between which samples a time is, and how far
    const times = this.about.sample_s, last = times.length - 1;
    const exact = last > 0 ? (Math.min(Math.max(t, 0), this.about.duration_s) / times[last]) * last : 0;
    const k = Math.min(Math.floor(exact), Math.max(last - 1, 0));
    return [k, exact - k];
  }

  move(t) { // to where all nodes are at a time: on a curve through the samples (Catmull and Rom, 1974)
    const [k, f] = this.sample(t), count = this.place.length, last = this.about.sample_s.length - 1;
    const at = (sample) => this.positions.subarray(sample * count, (sample + 1) * count), k1 = Math.min(k + 1, last);
    const a = at(k), b = at(k1), before = at(Math.max(k - 1, 0)), after = at(Math.min(k + 2, last));
    const one = k > 0 ? 0.5 : 1, two = k + 2 <= last ? 0.5 : 1; // at an end the slope is that of the one stretch there is
    const f2 = f * f, f3 = f2 * f, ha = 2 * f3 - 3 * f2 + 1, hb = 3 * f2 - 2 * f3, ga = (f3 - 2 * f2 + f) * one, gb = (f3 - f2) * two;
    for (let i = 0; i < count; i++) this.place[i] = ha * a[i] + hb * b[i] + ga * (b[i] - before[i]) + gb * (after[i] - a[i]);
  }

  sunAt(t) {
    const [k, f] = this.sample(t), next = Math.min(k + 1, this.about.sample_s.length - 1);
    return [0, 1, 2].map((i) => this.sun[3 * k + i] * (1 - f) + this.sun[3 * next + i] * f);
  }

  up(l, at_s) { // the state of a link at a time, [from, to, delay, rate], or null; times that follow each other are quick
    const t = Math.min(at_s, this.about.duration_s - 1e-6); // the end is the last instant's
    const states = this.states[l];
    let at = this._at[l];
    while (at > 0 && states[at] && states[at][0] > t) at--;
    while (at + 1 < states.length && states[at + 1][0] <= t) at++;
    this._at[l] = at;
    const state = states[at];
    return state && state[0] <= t && t < state[1] ? state : null;
  }

  loadOf(l, t) { // the larger of both directions, 0 to 1; null where nobody counted
    if (!this.load) { const ways = [this.busy.get(2 * l), this.busy.get(2 * l + 1)].filter((one) => one !== undefined); return ways.length ? Math.max(...ways) : null; }
    const { bucket_s, buckets } = this.about.load, at = Math.min(Math.floor(t / bucket_s), buckets - 1);
    const there = this.load[2 * l * buckets + at], back = this.load[(2 * l + 1) * buckets + at];
    const found = Math.max(there, back);
    return Number.isNaN(found) ? null : found;
  }

  add(event) { // in order of time; those of a live run may come a little late
    const insert = (list) => { let at = list.length; while (at > 0 && list[at - 1].t_s > event.t_s) at--; list.splice(at, 0, event); };
    if (event.type !== "load") insert(this.events);
    else for (const [from, to, ratio] of event.links) this.busy.set(this.directed(from, to), ratio);
    if (event.type === "fault") insert(this.faults);
  }

  directed(from, to) { // the number of a direction of a link, by names
    const a = this.index.get(from), b = this.index.get(to), l = this.linkOf(a, b);
    return 2 * l + (this.about.links[l]?.a === a ? 0 : 1);
  }

  faultsAt(t) { // links and nodes that faults hold at a time
    const links = new Map(), nodes = new Map();
    for (const event of this.faults) {
      if (event.t_s > t) break;
      const sign = event.phase === "struck" ? 1 : -1;
      for (const [a, b] of event.links) {
        const l = this.linkOf(this.index.get(a), this.index.get(b));
        if (l !== undefined) links.set(l, Math.max(0, (links.get(l) || 0) + sign));
      }
      for (const name of event.nodes) {
        const i = this.index.get(name);
        if (i !== undefined) nodes.set(i, Math.max(0, (nodes.get(i) || 0) + sign));
      }
    }
    return { links: new Set([...links].filter((x) => x[1]).map((x) => x[0])), nodes: new Set([...nodes].filter((x) => x[1]).map((x) => x[0])) };
  }

  journeys() { // what travels: questions and transfers with their ways, from when to when; made anew when events came
    if (this._journeysOf === this.events.length) return this._journeys;
    const found = new Map();
    for (const event of this.events) {
      if (event.type !== "question" && event.type !== "transfer") continue;
      const key = `${event.type} ${event.id}`, one = found.get(key) || { type: event.type, from: event.t_s, until: Infinity, turns: Infinity, path: null };
      if (event.path) one.path = event.path.map((name) => this.index.get(name));
      if (event.phase === "first_token") one.turns = event.t_s;
      if (["done", "failed", "ended"].includes(event.phase)) one.until = event.t_s;
      found.set(key, one);
    }
    this._journeysOf = this.events.length;
    this._journeys = [...found.values()].filter((one) => one.path && one.path.length > 1 && one.path.every((i) => i !== undefined));
    return this._journeys;
  }
}

export function listen(onEvent, onEnd) {
  const socket = new WebSocket(`ws://${location.host}/${address("events")}`);
  socket.onmessage = (message) => onEvent(JSON.parse(message.data));
  socket.onclose = onEnd;
}
