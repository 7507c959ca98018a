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
    sky.spin = 0;
    sky.events = [];
    sky.faulty = new Map(); // link -> how often it is hit at the time shown
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

  move(t) { // to where all nodes are at a time
    const [k, f] = this.sample(t), count = this.place.length, next = Math.min(k + 1, this.about.sample_s.length - 1);
    const a = this.positions.subarray(k * count, (k + 1) * count), b = this.positions.subarray(next * count, (next + 1) * count);
    for (let i = 0; i < count; i++) this.place[i] = a[i] + (b[i] - a[i]) * f;
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
    if (!this.load) return null;
    const { bucket_s, buckets } = this.about.load, at = Math.min(Math.floor(t / bucket_s), buckets - 1);
    const there = this.load[2 * l * buckets + at], back = this.load[(2 * l + 1) * buckets + at];
    const found = Math.max(there, back);
    return Number.isNaN(found) ? null : found;
  }

  add(event) {
    this.events.push(event);
  }

  faultsAt(t) { // links and nodes that faults hold at a time
    const links = new Map(), nodes = new Map();
    for (const event of this.events) {
      if (event.t_s > t) break;
      if (event.type !== "fault") continue;
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
