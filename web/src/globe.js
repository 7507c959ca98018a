// The globe: drawn with three.js, one call for all satellites and one for all links, whose buffers are filled anew in place.

import {
  BackSide, BufferAttribute, BufferGeometry, CanvasTexture, Color, DoubleSide, DynamicDrawUsage, Group, LineBasicMaterial, LineSegments, Mesh, MeshBasicMaterial, PerspectiveCamera,
  Points, Scene, ShaderMaterial, SphereGeometry, Spherical, SRGBColorSpace, Vector3, WebGLRenderer,
} from "three";
import { OrbitControls } from "three/examples/jsm/controls/OrbitControls.js";
import { LineMaterial } from "three/examples/jsm/lines/LineMaterial.js";
import { LineSegments2 } from "three/examples/jsm/lines/LineSegments2.js";
import { LineSegmentsGeometry } from "three/examples/jsm/lines/LineSegmentsGeometry.js";
import land from "../../isl_emu/show/land.json";
import { COLOURS, loadColour } from "./colours.js";

const KM = 1 / 6378.137, FLATTENED = 6356.752 / 6378.137, UNDER = 0.998; // the map lies a little under what stands on it
const MANY = 500, THIN = 1, MAP = [4096, 2048]; // links that are drawn thinner; pixels
const RING = 48, CONES_AT_MOST = 60, PULSE_S = 1.4;
const HALF_FOV_DEG = 17.5; // of the shorter side
const DAY_S = 86164.0905;

function earthTexture(dark) {
  const canvas = document.createElement("canvas"), [width, height] = MAP;
  [canvas.width, canvas.height] = MAP;
  const pen = canvas.getContext("2d"), x = (longitude) => ((longitude + 180) / 360) * width, y = (latitude) => ((90 - latitude) / 180) * height;
  pen.fillStyle = dark ? "#14365a" : "#a9cbe2"; pen.fillRect(0, 0, width, height);
  pen.fillStyle = dark ? "#54705c" : "#e9eadb"; pen.strokeStyle = dark ? "#9dbd9f" : "#869c7d"; pen.lineWidth = 2.5; pen.lineJoin = "round";
  for (const ring of land.rings) for (const turn of [-360, 0, 360]) {
    pen.beginPath();
    ring.forEach(([longitude, latitude], i) => pen[i ? "lineTo" : "moveTo"](x(longitude + turn), y(latitude)));
    pen.closePath(); pen.fill(); pen.stroke();
  }
  pen.strokeStyle = dark ? "#ffffff2a" : "#00000024"; pen.lineWidth = 2;
  for (let at = -180; at <= 180; at += 30) { pen.beginPath(); pen.moveTo(x(at), y(75)); pen.lineTo(x(at), y(-75)); pen.stroke(); }
  for (let at = -60; at <= 60; at += 30) { pen.beginPath(); pen.moveTo(0, y(at)); pen.lineTo(width, y(at)); pen.stroke(); }
  const texture = new CanvasTexture(canvas);
  texture.colorSpace = SRGBColorSpace; texture.anisotropy = 4;
  return texture;
}

function withoutCard() { // whether a program draws instead of a graphics card: then smooth edges of many lines take half of the time
  const pen = document.createElement("canvas").getContext("webgl2"), about = pen?.getExtension("WEBGL_debug_renderer_info");
  return Boolean(about) && /swiftshader|llvmpipe|software/i.test(pen.getParameter(about.UNMASKED_RENDERER_WEBGL));
}

function earth(dark) {
  const drawn = new Mesh(new SphereGeometry(1, 128, 96), new ShaderMaterial({
    uniforms: { map: { value: earthTexture(dark) }, sun: { value: new Vector3(1, 0, 0) }, night: { value: 1 }, floor: { value: dark ? 0.34 : 0.45 }, air: { value: new Color(dark ? "#6fb7ff" : "#ffffff") } },
    vertexShader: `varying vec2 at; varying vec3 up; varying vec3 facing, seen;
      void main() { at = uv; up = normalize(position); vec4 eye = modelViewMatrix * vec4(position, 1.0); facing = normalMatrix * normal; seen = -eye.xyz; gl_Position = projectionMatrix * eye; }`,
    fragmentShader: `uniform sampler2D map; uniform vec3 sun, air; uniform float night, floor; varying vec2 at; varying vec3 up; varying vec3 facing, seen;
      void main() {
        float day = mix(1.0, smoothstep(-0.12, 0.14, dot(up, sun)), night), rim = pow(1.0 - max(dot(normalize(facing), normalize(seen)), 0.0), 3.5);
        gl_FragColor = vec4(texture2D(map, at).rgb * mix(floor * vec3(0.8, 0.9, 1.15), vec3(1.0), day) + air * rim * (0.12 + 0.4 * day), 1.0);
      #include <colorspace_fragment>
      }`,
  }));
  drawn.scale.set(UNDER, UNDER * FLATTENED, UNDER);
  return drawn;
}

function atmosphere(dark) { // a thin light around the Earth's edge
  const drawn = new Mesh(new SphereGeometry(1.09, 96, 64), new ShaderMaterial({
    side: BackSide, transparent: true, depthWrite: false, uniforms: { air: { value: new Color(dark ? "#4fa3ff" : "#5d9fd6") } },
    vertexShader: "varying vec3 facing, seen; void main() { vec4 eye = modelViewMatrix * vec4(position, 1.0); facing = normalMatrix * normal; seen = -eye.xyz; gl_Position = projectionMatrix * eye; }",
    fragmentShader: "uniform vec3 air; varying vec3 facing, seen; void main() { float edge = max(-dot(normalize(facing), normalize(seen)), 0.0); gl_FragColor = vec4(air, 0.5 * pow(edge / 0.42, 4.0) * step(edge, 0.9));\n#include <colorspace_fragment>\n}",
  }));
  return drawn;
}

const DISC = 0, DIAMOND = 1, RINGED = 2; // how a point looks: stations differ from satellites by more than colour, and what is picked has a ring

function points(count, size) {
  const geometry = new BufferGeometry(), numbers = (width) => new BufferAttribute(new Float32Array(width * count), width).setUsage(DynamicDrawUsage);
  geometry.setAttribute("position", numbers(3)); geometry.setAttribute("colour", numbers(3)); geometry.setAttribute("size", numbers(1)); geometry.setAttribute("shape", numbers(1));
  geometry.attributes.size.array.fill(size);
  const drawn = new Points(geometry, new ShaderMaterial({
    transparent: true, depthWrite: false,
    uniforms: { scale: { value: 1 } },
    vertexShader: "attribute vec3 colour; attribute float size, shape; uniform float scale; varying vec3 tone; varying float kind; void main() { tone = colour; kind = shape; gl_Position = projectionMatrix * modelViewMatrix * vec4(position, 1.0); gl_PointSize = size * scale; }",
    fragmentShader: `varying vec3 tone; varying float kind;
      void main() {
        vec2 at = abs(gl_PointCoord - 0.5) * 2.0;
        float ringed = step(1.5, kind), diamond = step(0.5, kind - 2.0 * ringed), r = mix(length(at), at.x + at.y, diamond), far = length(at);
        float body = 1.0 - smoothstep(0.52, 0.62, mix(r, r * 1.6, ringed)), halo = 0.38 * (1.0 - smoothstep(0.3, 1.0, r)) * (1.0 - ringed);
        float ring = ringed * smoothstep(0.74, 0.8, far) * (1.0 - smoothstep(0.9, 0.98, far)), alpha = max(max(body, halo), ring);
        if (alpha < 0.02) discard;
        gl_FragColor = vec4(mix(tone, vec3(1.0), 0.35 * body * (1.0 - smoothstep(0.0, 0.4, r))), alpha);
      #include <colorspace_fragment>
      }`,
  }));
  drawn.frustumCulled = false;
  return drawn;
}

function segments(count, width, opacity) { // wide lines of triangles; very many are thin ones, which cost a tenth
  const look = { vertexColors: true, transparent: true, opacity, depthWrite: false };
  let drawn;
  if (count > MANY && width === THIN) {
    const geometry = new BufferGeometry(), numbers = () => new BufferAttribute(new Float32Array(6 * count), 3).setUsage(DynamicDrawUsage);
    geometry.setAttribute("position", numbers()); geometry.setAttribute("color", numbers());
    drawn = new LineSegments(geometry, new LineBasicMaterial(look));
    drawn.buffers = [geometry.attributes.position, geometry.attributes.color];
    drawn.first = (shown) => geometry.setDrawRange(0, 2 * shown);
  } else {
    const geometry = new LineSegmentsGeometry();
    geometry.setPositions(new Float32Array(6 * count)); geometry.setColors(new Float32Array(6 * count));
    drawn = new LineSegments2(geometry, new LineMaterial({ ...look, linewidth: width }));
    drawn.buffers = [geometry.attributes.instanceStart.data.setUsage(DynamicDrawUsage), geometry.attributes.instanceColorStart.data.setUsage(DynamicDrawUsage)];
    drawn.first = (shown) => { geometry.instanceCount = shown; };
  }
  [drawn.places, drawn.tones] = drawn.buffers.map((one) => one.array);
  drawn.show = (shown) => { drawn.first(shown); drawn.visible = shown > 0; for (const one of drawn.buffers) one.needsUpdate = true; };
  drawn.frustumCulled = false;
  return drawn;
}

export class Globe {
  constructor(canvas, labels, sky) {
    this.canvas = canvas; this.sky = sky; this.labels = labels; this.frames = 0; this.lines = [];
    this.dark = matchMedia("(prefers-color-scheme: dark)").matches;
    this.colours = Object.fromEntries(Object.entries(COLOURS(this.dark)).map(([name, tone]) => [name, new Color(tone)]));
    const crowded = sky.about.links.length > MANY && withoutCard();
    this.renderer = new WebGLRenderer({ canvas, antialias: !crowded, alpha: true });
    this.scene = new Scene(); this.world = new Group(); this.scene.add(this.world);
    this.camera = new PerspectiveCamera(35, 1, 0.01, 100);
    this.controls = new OrbitControls(this.camera, canvas);
    Object.assign(this.controls, { enableDamping: true, dampingFactor: 0.1, minDistance: 1.15, maxDistance: 20, enablePan: false });
    this.earth = earth(this.dark); this.world.add(this.earth, atmosphere(this.dark));
    const { nodes, links } = sky.about;
    const many = links.length > MANY;
    this.big = nodes.length > MANY ? 6 : 15; this.points = points(nodes.length, this.big);
    this.segments = segments(links.length, many ? THIN : 2, many ? 0.55 : 0.9);
    this.ways = segments(4096, 3.5, 0.95); this.pulses = points(1024, 20);
    this.world.add(this.segments, this.ways, this.points, this.pulses);
    const serving = (one) => one.roles.includes("serves") || one.roles.includes("computes");
    this.tones = nodes.map((one) => (one.kind === "station" ? this.colours.ground : serving(one) ? this.colours.server : this.colours.satellite));
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
    middle.normalize();
    const beside = new Spherical().setFromVector3(middle); // from the side, so that lasers overhead are no line
    beside.theta += 0.45; beside.phi = Math.min(Math.max(beside.phi - 0.1, 0.5), 2.4); middle.setFromSpherical(beside);
    const farthest = Math.max(1.1, ...Array.from({ length: this.sky.about.nodes.length }, (_, i) => this.at(i).length()).filter(Number.isFinite));
    this.camera.position.copy(middle.multiplyScalar(Math.min(1.12 * farthest / Math.sin((HALF_FOV_DEG * Math.PI) / 180), 18)));
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
    this.points.material.uniforms.scale.value = this.pulses.material.uniforms.scale.value = this.renderer.getPixelRatio();
    this.camera.fov = (360 / Math.PI) * Math.atan(Math.tan((HALF_FOV_DEG * Math.PI) / 180) / Math.min(this.camera.aspect, 1));
    this.camera.updateProjectionMatrix();
  }

  drawNodes(picked, faults, nodes, colours) {
    const { position, colour, size, shape } = this.points.geometry.attributes, p = this.sky.place;
    for (let i = 0; i < nodes.length; i++) {
      position.array[3 * i] = p[3 * i] * KM; position.array[3 * i + 1] = p[3 * i + 2] * KM; position.array[3 * i + 2] = -p[3 * i + 1] * KM;
      (faults.nodes.has(i) ? colours.fault : this.tones[i]).toArray(colour.array, 3 * i);
      const station = nodes[i].kind === "station", chosen = picked.nodes.includes(i);
      size.array[i] = chosen ? 26 : station ? Math.max(this.big, 13) : this.big;
      shape.array[i] = (station ? DIAMOND : DISC) + (chosen ? RINGED : 0);
    }
    for (const one of [position, colour, size, shape]) one.needsUpdate = true;
  }

  drawLinks(t, by, picked, faults, links) {
    const places = this.points.geometry.attributes.position.array, { colours } = this, { places: at, tones } = this.segments;
    this.lines.length = 0;
    let drawn = 0;
    for (let l = 0; l < links.length; l++) {
      const { a, b, kind } = links[l], faulty = faults.links.has(l);
      if (!this.sky.up(l, t) && !faulty && picked.link !== l) continue;
      let tone = kind === "ground" ? colours.ground : colours.laser;
      if (faulty) tone = colours.fault;
      else if (by === "load") { const load = this.sky.loadOf(l, t); tone = load === null ? colours.unknown : loadColour(load); }
      if (picked.link === l && !faulty) tone = this.sky.up(l, t) ? colours.picked : colours.unknown;
      for (let i = 0; i < 3; i++) { at[6 * drawn + i] = places[3 * a + i]; at[6 * drawn + 3 + i] = places[3 * b + i]; }
      tone.toArray(tones, 6 * drawn); tone.toArray(tones, 6 * drawn + 3);
      this.lines.push(l); drawn++;
    }
    this.segments.show(drawn);
  }

  drawJourneys(t, wall_s) { // the way of each, and a pulse on it that shows which way: out, and back from the first token on
    const { places: way, tones } = this.ways, pulse = this.pulses.geometry.attributes;
    const a = new Vector3(), b = new Vector3();
    let drawn = 0, shown = 0;
    for (const one of this.sky.journeys()) {
      if (t < one.from || t > Math.min(one.until, one.from + 600) || shown >= 1024) continue;
      const hops = one.path.length - 1, forth = (wall_s / PULSE_S) % 1, far = (t >= one.turns ? 1 - forth : forth) * hops, colour = one.type === "question" ? this.colours.question : this.colours.transfer;
      for (let hop = 0; hop < hops && drawn < 4096; hop++, drawn++) {
        this.at(one.path[hop], a).multiplyScalar(1.002).toArray(way, 6 * drawn);
        this.at(one.path[hop + 1], b).multiplyScalar(1.002).toArray(way, 6 * drawn + 3);
        colour.toArray(tones, 6 * drawn); colour.toArray(tones, 6 * drawn + 3);
      }
      const hop = Math.min(Math.floor(far), hops - 1);
      this.at(one.path[hop], a).lerp(this.at(one.path[hop + 1], b), far - hop).multiplyScalar(1.004).toArray(pulse.position.array, 3 * shown);
      colour.toArray(pulse.colour.array, 3 * shown++);
    }
    this.ways.show(drawn); this.pulses.geometry.setDrawRange(0, shown);
    for (const one of [pulse.position, pulse.colour]) one.needsUpdate = true;
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

  eye() { // from where it is seen; it changes while a turn comes to rest
    this.controls.update();
    return [...this.camera.position.toArray(), this.canvas.clientWidth, this.canvas.clientHeight];
  }

  turn(east, south, nearer) { // about the Earth, rad; and towards it
    const seen = new Spherical().setFromVector3(this.camera.position), { minDistance, maxDistance } = this.controls;
    seen.theta += east; seen.phi = Math.min(Math.max(seen.phi + south, 0.05), Math.PI - 0.05);
    seen.radius = Math.min(Math.max(seen.radius * nearer, minDistance), maxDistance);
    this.camera.position.setFromSpherical(seen);
  }

  show(i) { // turn so that a node is in front
    const away = this.camera.position.length();
    this.camera.position.copy(this.at(i).applyMatrix4(this.world.matrixWorld).normalize().multiplyScalar(away));
  }
}
