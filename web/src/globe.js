// The globe: drawn with three.js, one call for all satellites and one for all links, whose buffers are filled anew in place.

import {
  BufferAttribute, BufferGeometry, CanvasTexture, Color, DoubleSide, DynamicDrawUsage, Group, LineBasicMaterial, LineSegments,
  LinearFilter, Mesh, MeshBasicMaterial, PerspectiveCamera, Points, Scene, ShaderMaterial, SphereGeometry, SRGBColorSpace, Vector3, WebGLRenderer,
} from "three";
import { OrbitControls } from "three/examples/jsm/controls/OrbitControls.js";
import land from "../../isl_emu/show/land.json";
import { COLOURS, loadColour } from "./colours.js";

const KM = 1 / 6371, RING = 48, CONES_AT_MOST = 60, PULSE_S = 1.4;
const DAY_S = 86164.0905;

function earthTexture(dark) {
  const canvas = document.createElement("canvas");
  canvas.width = 2048; canvas.height = 1024;
  const pen = canvas.getContext("2d"), x = (longitude) => ((longitude + 180) / 360) * 2048, y = (latitude) => ((90 - latitude) / 180) * 1024;
  pen.fillStyle = dark ? "#16324f" : "#9fc3dc"; pen.fillRect(0, 0, 2048, 1024);
  pen.fillStyle = dark ? "#4b6b55" : "#dfe3cf"; pen.strokeStyle = dark ? "#7f9f86" : "#8fa384"; pen.lineWidth = 1.5;
  for (const ring of land.rings) for (const turn of [-360, 0, 360]) {
    pen.beginPath();
    ring.forEach(([longitude, latitude], i) => pen[i ? "lineTo" : "moveTo"](x(longitude + turn), y(latitude)));
    pen.closePath(); pen.fill(); pen.stroke();
  }
  pen.strokeStyle = dark ? "#ffffff22" : "#00000022"; pen.lineWidth = 1;
  for (let at = -180; at <= 180; at += 30) { pen.beginPath(); pen.moveTo(x(at), 0); pen.lineTo(x(at), 1024); pen.stroke(); }
  for (let at = -60; at <= 60; at += 30) { pen.beginPath(); pen.moveTo(0, y(at)); pen.lineTo(2048, y(at)); pen.stroke(); }
  const texture = new CanvasTexture(canvas);
  texture.colorSpace = SRGBColorSpace; texture.minFilter = LinearFilter; texture.generateMipmaps = false;
  return texture;
}

function earth(dark) {
  return new Mesh(new SphereGeometry(1, 96, 64), new ShaderMaterial({
    uniforms: { map: { value: earthTexture(dark) }, sun: { value: new Vector3(1, 0, 0) }, night: { value: 1 }, floor: { value: dark ? 0.3 : 0.45 } },
    vertexShader: "varying vec2 at; varying vec3 up; void main() { at = uv; up = normalize(position); gl_Position = projectionMatrix * modelViewMatrix * vec4(position, 1.0); }",
    fragmentShader: `uniform sampler2D map; uniform vec3 sun; uniform float night, floor; varying vec2 at; varying vec3 up;
      void main() { float day = smoothstep(-0.10, 0.12, dot(up, sun)); gl_FragColor = vec4(texture2D(map, at).rgb * mix(1.0, mix(floor, 1.0, day), night), 1.0);
      #include <colorspace_fragment>
      }`,
  }));
}

function points(count, size) {
  const geometry = new BufferGeometry();
  geometry.setAttribute("position", new BufferAttribute(new Float32Array(3 * count), 3).setUsage(DynamicDrawUsage));
  geometry.setAttribute("colour", new BufferAttribute(new Float32Array(3 * count), 3).setUsage(DynamicDrawUsage));
  geometry.setAttribute("size", new BufferAttribute(new Float32Array(count).fill(size), 1).setUsage(DynamicDrawUsage));
  const drawn = new Points(geometry, new ShaderMaterial({
    transparent: true,
    uniforms: { scale: { value: devicePixelRatio } },
    vertexShader: "attribute vec3 colour; attribute float size; uniform float scale; varying vec3 tone; void main() { tone = colour; gl_Position = projectionMatrix * modelViewMatrix * vec4(position, 1.0); gl_PointSize = size * scale; }",
    fragmentShader: "varying vec3 tone; void main() { float r = length(gl_PointCoord - 0.5) * 2.0; if (r > 1.0) discard; gl_FragColor = vec4(mix(tone, vec3(0.0), 0.55 * smoothstep(0.7, 0.95, r)), 1.0);\n#include <colorspace_fragment>\n}",
  }));
  drawn.frustumCulled = false;
  return drawn;
}

function segments(count, opacity) {
  const geometry = new BufferGeometry();
  geometry.setAttribute("position", new BufferAttribute(new Float32Array(6 * count), 3).setUsage(DynamicDrawUsage));
  geometry.setAttribute("color", new BufferAttribute(new Float32Array(6 * count), 3).setUsage(DynamicDrawUsage));
  const drawn = new LineSegments(geometry, new LineBasicMaterial({ vertexColors: true, transparent: true, opacity }));
  drawn.frustumCulled = false;
  return drawn;
}

export class Globe {
  constructor(canvas, labels, sky) {
    this.canvas = canvas; this.sky = sky; this.labels = labels; this.frames = 0; this.lines = [];
    this.dark = matchMedia("(prefers-color-scheme: dark)").matches;
    this.colours = Object.fromEntries(Object.entries(COLOURS(this.dark)).map(([name, tone]) => [name, new Color(tone)]));
    this.renderer = new WebGLRenderer({ canvas, antialias: true, alpha: true });
    this.scene = new Scene(); this.world = new Group(); this.scene.add(this.world);
    this.camera = new PerspectiveCamera(35, 1, 0.01, 100);
    this.controls = new OrbitControls(this.camera, canvas);
    Object.assign(this.controls, { enableDamping: true, dampingFactor: 0.1, minDistance: 1.15, maxDistance: 20, enablePan: false });
    this.earth = earth(this.dark); this.world.add(this.earth);
    const { nodes, links } = sky.about;
    this.points = points(nodes.length, nodes.length > 500 ? 4 : 8);
    this.segments = segments(links.length, links.length > 500 ? 0.6 : 0.9);
    this.ways = segments(4096, 1); this.pulses = points(1024, 9);
    this.world.add(this.segments, this.ways, this.points, this.pulses);
    const cone = new BufferGeometry();
    this.stations = nodes.flatMap((one, i) => (one.kind === "station" ? [i] : [])).slice(0, CONES_AT_MOST);
    cone.setAttribute("position", new BufferAttribute(new Float32Array(9 * RING * this.stations.length), 3).setUsage(DynamicDrawUsage));
    this.cones = new Mesh(cone, new MeshBasicMaterial({ color: this.colours.ground, transparent: true, opacity: 0.16, side: DoubleSide, depthWrite: false }));
    this.cones.frustumCulled = false; this.cones.visible = false; this.world.add(this.cones);
    this.tags = new Map();
    this.look();
  }

  look() { // from where most is seen: above the middle of the stations, or of the first satellite
    this.sky.move(0);
    const middle = new Vector3(), seen = this.stations.length ? this.stations : [0];
    for (const i of seen) middle.add(this.at(i).normalize());
    if (middle.length() < 0.1) middle.set(0.3, 0.4, 1);
    const farthest = Math.max(1.1, ...Array.from({ length: this.sky.about.nodes.length }, (_, i) => this.at(i).length()).filter(Number.isFinite));
    this.camera.position.copy(middle.normalize().multiplyScalar(Math.min(2.2 + 1.6 * farthest, 18)));
    this.controls.update();
  }

  at(i, target = new Vector3()) { // Earth-fixed x, y, z in km become x, z, -y of the scene: its north is up
    const p = this.sky.place;
    return target.set(p[3 * i] * KM, p[3 * i + 2] * KM, -p[3 * i + 1] * KM);
  }

  draw(t, { colour, cones, night, spin, picked, faults, wall_s }) {
    const { sky, colours } = this, { nodes, links } = sky.about;
    this.resize();
    sky.move(t);
    this.world.rotation.y = spin ? ((t % DAY_S) / DAY_S) * 2 * Math.PI : 0;
    const [x, y, z] = sky.sunAt(t);
    this.earth.material.uniforms.sun.value.set(x, z, -y).normalize();
    this.earth.material.uniforms.night.value = night ? 1 : 0;
    this.drawNodes(picked, faults, nodes, colours);
    this.drawLinks(t, colour, picked, faults, links);
    this.drawJourneys(t, wall_s);
    this.cones.visible = cones;
    if (cones) this.drawCones(nodes);
    this.controls.update();
    this.renderer.render(this.scene, this.camera);
    this.tag(nodes, picked);
    this.frames++;
  }

  resize() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    if (this.width === width && this.height === height) return;
    [this.width, this.height] = [width, height];
    this.renderer.setPixelRatio(Math.min(devicePixelRatio, 2));
    this.renderer.setSize(width, height, false);
    this.camera.aspect = width / Math.max(height, 1);
    this.camera.fov = width < height ? 50 : 35;
    this.camera.updateProjectionMatrix();
  }

  drawNodes(picked, faults, nodes, colours) {
    const { position, colour, size } = this.points.geometry.attributes, p = this.sky.place, big = nodes.length > 500 ? 4 : 8;
    for (let i = 0; i < nodes.length; i++) {
      position.array[3 * i] = p[3 * i] * KM; position.array[3 * i + 1] = p[3 * i + 2] * KM; position.array[3 * i + 2] = -p[3 * i + 1] * KM;
      const serves = nodes[i].roles.includes("serves") || nodes[i].roles.includes("computes");
      const tone = faults.nodes.has(i) ? colours.fault : nodes[i].kind === "station" ? colours.ground : serves ? colours.server : colours.satellite;
      tone.toArray(colour.array, 3 * i);
      size.array[i] = picked.nodes.includes(i) ? 15 : nodes[i].kind === "station" ? 9 : big;
    }
    for (const one of [position, colour, size]) one.needsUpdate = true;
  }

  drawLinks(t, by, picked, faults, links) {
    const { position, color } = this.segments.geometry.attributes, places = this.points.geometry.attributes.position.array, { colours } = this;
    this.lines.length = 0;
    let drawn = 0;
    for (let l = 0; l < links.length; l++) {
      const { a, b, kind } = links[l], faulty = faults.links.has(l);
      if (!this.sky.up(l, t) && !faulty) continue;
      let tone = kind === "ground" ? colours.ground : colours.laser;
      if (faulty) tone = colours.fault;
      else if (by === "load") { const load = this.sky.loadOf(l, t); tone = load === null ? colours.unknown : loadColour(load); }
      if (picked.link === l) tone = colours.picked;
      for (const [end, node] of [[0, a], [1, b]]) {
        for (let i = 0; i < 3; i++) position.array[6 * drawn + 3 * end + i] = places[3 * node + i];
        tone.toArray(color.array, 6 * drawn + 3 * end);
      }
      this.lines.push(l); drawn++;
    }
    this.segments.geometry.setDrawRange(0, 2 * drawn);
    position.needsUpdate = color.needsUpdate = true;
  }

  drawJourneys(t, wall_s) { // the way of each, and a pulse on it that shows which way: out, and back from the first token on
    const way = this.ways.geometry.attributes, pulse = this.pulses.geometry.attributes, tone = this.colours.question;
    const a = new Vector3(), b = new Vector3();
    let drawn = 0, shown = 0;
    for (const one of this.sky.journeys()) {
      if (t < one.from || t > Math.min(one.until, one.from + 600) || shown >= 1024) continue;
      const hops = one.path.length - 1, forth = (wall_s / PULSE_S) % 1, far = (t >= one.turns ? 1 - forth : forth) * hops, colour = one.type === "question" ? tone : this.colours.transfer;
      for (let hop = 0; hop < hops && drawn < 4096; hop++, drawn++) {
        this.at(one.path[hop], a).multiplyScalar(1.002).toArray(way.position.array, 6 * drawn);
        this.at(one.path[hop + 1], b).multiplyScalar(1.002).toArray(way.position.array, 6 * drawn + 3);
        colour.toArray(way.color.array, 6 * drawn); colour.toArray(way.color.array, 6 * drawn + 3);
      }
      const hop = Math.min(Math.floor(far), hops - 1);
      this.at(one.path[hop], a).lerp(this.at(one.path[hop + 1], b), far - hop).multiplyScalar(1.004).toArray(pulse.position.array, 3 * shown);
      colour.toArray(pulse.colour.array, 3 * shown++);
    }
    this.ways.geometry.setDrawRange(0, 2 * drawn); this.pulses.geometry.setDrawRange(0, shown);
    for (const one of [way.position, way.color, pulse.position, pulse.colour]) one.needsUpdate = true;
    this.travelling = shown;
  }

  drawCones(nodes) { // what a station sees: the directions at its least elevation, as far as the nearest shell
    const { position } = this.cones.geometry.attributes, up = new Vector3(), east = new Vector3(), north = new Vector3(), edge = new Vector3();
    const heights = nodes.flatMap((one, i) => (one.kind === "satellite" ? [this.at(i).length()] : [])).filter(Number.isFinite), shell = Math.min(...heights);
    this.stations.forEach((i, number) => {
      const apex = this.at(i), e = ((nodes[i].min_elevation_deg ?? 10) * Math.PI) / 180, r = apex.length();
      const reach = Number.isFinite(shell) ? Math.sqrt(Math.max(shell ** 2 - (r * Math.cos(e)) ** 2, 0)) - r * Math.sin(e) : 0.1;
      up.copy(apex).normalize(); east.set(0, 1, 0).cross(up).normalize(); north.copy(up).cross(east);
      const ring = Array.from({ length: RING + 1 }, (_, step) => {
        const azimuth = (2 * Math.PI * step) / RING;
        edge.copy(east).multiplyScalar(Math.cos(azimuth)).addScaledVector(north, Math.sin(azimuth)).multiplyScalar(Math.cos(e)).addScaledVector(up, Math.sin(e));
        return edge.multiplyScalar(reach).add(apex).clone();
      });
      for (let step = 0; step < RING; step++) [apex, ring[step], ring[step + 1]].forEach((corner, c) => corner.toArray(position.array, 9 * (number * RING + step) + 3 * c));
    });
    position.needsUpdate = true;
  }

  project(i, target = new Vector3()) { // a node on the canvas in pixels, and whether the Earth hides it
    this.at(i, target); target.applyMatrix4(this.world.matrixWorld);
    const eye = this.camera.position, towards = target.clone().sub(eye), along = towards.length(), nearest = -eye.dot(towards.normalize());
    const hidden = nearest > 0 && nearest < along - 0.02 && eye.clone().addScaledVector(towards, nearest).length() < 1;
    target.project(this.camera);
    return { x: ((target.x + 1) / 2) * this.width, y: ((1 - target.y) / 2) * this.height, hidden: hidden || !Number.isFinite(target.x) };
  }

  tag(nodes, picked) { // names beside stations and what is picked, as text that is no picture
    const wanted = new Set([...(this.stations.length <= 20 ? this.stations : []), ...picked.nodes]);
    for (const [i, tag] of this.tags) if (!wanted.has(i)) { tag.remove(); this.tags.delete(i); }
    for (const i of wanted) {
      if (!this.tags.has(i)) { const tag = document.createElement("span"); tag.textContent = nodes[i].name; this.labels.append(tag); this.tags.set(i, tag); }
      const tag = this.tags.get(i), { x, y, hidden } = this.project(i);
      tag.hidden = hidden; tag.className = picked.nodes.includes(i) ? "picked" : "";
      tag.style.transform = `translate(${Math.round(x + 8)}px, ${Math.round(y - 9)}px)`;
    }
  }

  pick(x, y) { // the node within a finger's width, else the link; both as numbers
    const { nodes, links } = this.sky.about, seen = nodes.map((_, i) => this.project(i));
    let best = { distance: 12 };
    seen.forEach((one, i) => { const distance = Math.hypot(one.x - x, one.y - y); if (!one.hidden && distance < best.distance) best = { distance, node: i }; });
    if (best.node !== undefined) return best;
    best = { distance: 6 };
    for (const l of this.lines) {
      const a = seen[links[l].a], b = seen[links[l].b], dx = b.x - a.x, dy = b.y - a.y;
      if (a.hidden && b.hidden) continue;
      const along = Math.min(1, Math.max(0, ((x - a.x) * dx + (y - a.y) * dy) / (dx * dx + dy * dy || 1)));
      const distance = Math.hypot(a.x + along * dx - x, a.y + along * dy - y);
      if (distance < best.distance) best = { distance, link: l };
    }
    return best;
  }

  show(i) { // turn so that a node is in front
    const away = this.camera.position.length();
    this.camera.position.copy(this.at(i).applyMatrix4(this.world.matrixWorld).normalize().multiplyScalar(away));
  }
}
