// The same net as a scheme: a block for each shell, planes from left to right and slots from bottom to top, stations below.

import { COLOURS, loadColour } from "./colours.js";

export class Topology {
  constructor(canvas, sky) {
    this.canvas = canvas; this.sky = sky; this.pen = canvas.getContext("2d");
    this.colours = COLOURS(matchMedia("(prefers-color-scheme: dark)").matches);
    const { nodes } = sky.about;
    this.shells = [...new Set(nodes.filter((one) => one.kind === "satellite").map((one) => one.shell))];
    this.stations = nodes.flatMap((one, i) => (one.kind === "station" ? [i] : []));
    this.rings = new Set(this.shells.filter((shell) => !nodes.some((one) => one.shell === shell && one.plane > 0)));
    const alone = new Map(); // satellites without a plane stand in a square
    this.grid = nodes.map((one) => {
      if (one.kind === "station") return null;
      if (one.plane !== null) return [one.plane, one.slot];
      const before = alone.get(one.shell) || 0; alone.set(one.shell, before + 1);
      const side = Math.ceil(Math.sqrt(nodes.filter((other) => other.shell === one.shell).length));
      return [before % side, Math.floor(before / side)];
    });
  }

  layout() {
    const { clientWidth: width, clientHeight: height } = this.canvas, { nodes } = this.sky.about, scale = Math.min(devicePixelRatio, 2);
    if (this.width !== width || this.height !== height) [this.width, this.height, this.canvas.width, this.canvas.height] = [width, height, width * scale, height * scale];
    this.pen.setTransform(scale, 0, 0, scale, 0, 0);
    const below = this.stations.length ? 66 : 16, block = (height - below - 24) / Math.max(this.shells.length, 1);
    const most = this.shells.map((shell) => nodes.reduce((found, one, i) => (one.shell === shell && this.grid[i] ? [Math.max(found[0], this.grid[i][0]), Math.max(found[1], this.grid[i][1])] : found), [0, 0]));
    this.place = nodes.map((one, i) => {
      if (!this.grid[i]) { const at = this.stations.indexOf(i); return [((at + 0.5) / this.stations.length) * width, height - 46]; }
      const shell = this.shells.indexOf(one.shell), [planes, slots] = most[shell], [plane, slot] = this.grid[i];
      if (planes === 0) { const angle = (2 * Math.PI * slot) / (slots + 1), high = Math.max(block - 44, 24) / 2, wide = Math.min(width / 2 - 55, 2.5 * high); // one plane is a ring
        return [width / 2 + (high < 100 ? wide : Math.min(high, wide)) * Math.sin(angle), 24 + block * (shell + 0.5) - Math.min(high, wide) * Math.cos(angle)]; }
      return [24 + ((width - 48) * plane) / planes, 24 + block * shell + 22 + ((block - 40) * (slots - slot)) / Math.max(slots, 1)];
    });
  }

  draw(t, { colour, picked, faults }) {
    this.layout();
    const { pen, colours, place } = this, { nodes, links } = this.sky.about, wide = (this.width / 2) ** 2, high = (this.height / 2) ** 2;
    pen.clearRect(0, 0, this.width, this.height);
    pen.font = "12px system-ui, sans-serif"; pen.textAlign = "center";
    this.lines = [];
    const strokes = new Map(); // all lines that look alike are one path: many short ones take long
    links.forEach(({ a, b, kind }, l) => {
      const faulty = faults.links.has(l), up = this.sky.up(l, t);
      if (!up && !faulty) return;
      const load = colour === "load" ? this.sky.loadOf(l, t) : null;
      const tone = picked.link === l ? colours.picked : faulty ? colours.fault : colour === "load" ? (load === null ? colours.unknown : loadColour(load).getStyle()) : kind === "ground" ? colours.ground : colours.laser;
      const width = picked.link === l ? 3 : links.length > 500 ? 0.6 : 1.6, key = `${tone} ${width} ${faulty}`;
      if (!strokes.has(key)) strokes.set(key, { tone, width, faulty, path: new Path2D() });
      const { path } = strokes.get(key), [ax, ay] = place[a], [bx, by] = place[b];
      const around = kind === "laser" && this.grid[a] && ((ax - bx) ** 2 > wide || (ay - by) ** 2 > high) && nodes[a].plane !== null && !this.rings.has(nodes[a].shell);
      if (around) { // from the last to the first: a stub at each end
        const dx = Math.sign(ax - bx) * ((ax - bx) ** 2 > wide ? 10 : 0), dy = Math.sign(ay - by) * ((ay - by) ** 2 > high ? 10 : 0);
        path.moveTo(ax, ay); path.lineTo(ax + dx, ay + dy); path.moveTo(bx, by); path.lineTo(bx - dx, by - dy);
      } else { path.moveTo(ax, ay); path.lineTo(bx, by); this.lines.push(l); }
    });
    for (const { tone, width, faulty, path } of strokes.values()) {
      pen.strokeStyle = tone; pen.lineWidth = width; pen.setLineDash(faulty ? [5, 4] : []); pen.stroke(path);
    }
    pen.setLineDash([]);
    for (const one of this.sky.journeys()) {
      if (t < one.from || t > Math.min(one.until, one.from + 600)) continue;
      pen.strokeStyle = one.type === "question" ? colours.question : colours.transfer; pen.lineWidth = 2.5; pen.beginPath();
      one.path.forEach((i, hop) => pen[hop ? "lineTo" : "moveTo"](...place[i])); pen.stroke();
    }
    const size = nodes.length > 500 ? 1.8 : 5;
    nodes.forEach((one, i) => {
      pen.fillStyle = faults.nodes.has(i) ? colours.fault : one.kind === "station" ? colours.ground : one.roles.includes("serves") || one.roles.includes("computes") ? colours.server : colours.satellite;
      pen.beginPath(); pen.arc(...place[i], picked.nodes.includes(i) ? size + 4 : one.kind === "station" ? 5 : size, 0, 7); pen.fill();
    });
    pen.fillStyle = colours.satellite;
    const few = nodes.length <= 60 && this.height > 260;
    nodes.forEach((one, i) => {
      if (one.kind === "station" ? this.stations.length > 12 && !picked.nodes.includes(i) : !few && !picked.nodes.includes(i)) return;
      const [x, y] = place[i];
      pen.fillText(one.name, Math.min(Math.max(x, 34), this.width - 34), one.kind === "station" ? y + 20 + (this.stations.indexOf(i) % 2) * 13 : y - 9);
    });
    if (this.shells.length > 1) { pen.textAlign = "left"; this.shells.forEach((shell, number) => pen.fillText(shell, 8, 20 + number * ((this.height - 80) / this.shells.length))); }
  }

  pick(x, y) {
    let best = { distance: 14 };
    this.place.forEach(([px, py], i) => { const distance = Math.hypot(px - x, py - y); if (distance < best.distance) best = { distance, node: i }; });
    if (best.node !== undefined) return best;
    best = { distance: 6 };
    for (const l of this.lines) {
      const { a, b } = this.sky.about.links[l], [ax, ay] = this.place[a], [bx, by] = this.place[b], dx = bx - ax, dy = by - ay;
      const along = Math.min(1, Math.max(0, ((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy || 1))), distance = Math.hypot(ax + along * dx - x, ay + along * dy - y);
      if (distance < best.distance) best = { distance, link: l };
    }
    return best;
  }
}
