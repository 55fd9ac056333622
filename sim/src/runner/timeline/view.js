// The part of the run that is shown, and how it is moved: nothing here knows what is drawn.

const data = JSON.parse(document.getElementById("data").textContent);
const GUTTER = 132, RIGHT = 12;
const byId = (id) => document.getElementById(id);
const lanesSvg = byId("lanes"), overview = byId("overview"), axis = byId("axis");
const END = Math.max(1000, data.end);
// Shown is [from, to], in milliseconds.
const view = { from: 0, to: END };

function el(parent, name, attributes, text) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const key in attributes) node.setAttribute(key, attributes[key]);
  if (text !== undefined) node.textContent = text;
  parent.appendChild(node);
  return node;
}

const plotWidth = () => Math.max(100, lanesSvg.clientWidth - GUTTER - RIGHT);
const xOf = (ms) => GUTTER + (ms - view.from) / (view.to - view.from) * plotWidth();
const msOf = (x) => view.from + (x - GUTTER) / plotWidth() * (view.to - view.from);
const wholeX = (ms) => GUTTER + ms / END * plotWidth();
const seconds = (ms) => (ms / 1000).toFixed(3) + " s";

let planned = false;
function redraw() {
  if (planned) return;
  planned = true;
  requestAnimationFrame(() => { planned = false; drawAxis(); drawOverview(); drawLanes(); });
}

function show(from, to) {
  const width = Math.min(END, Math.max(20, to - from));
  view.from = Math.min(Math.max(0, from), END - width);
  view.to = view.from + width;
  redraw();
}
function zoom(factor, at = (view.from + view.to) / 2) {
  const width = Math.min(END, Math.max(20, (view.to - view.from) * factor));
  const share = (at - view.from) / (view.to - view.from);
  show(at - share * width, at - share * width + width);
}
const move = (ms) => show(view.from + ms, view.to + ms);

function ticks(from, to, about) {
  const raw = (to - from) / about, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((n) => n * power).find((step) => step >= raw);
  const found = [];
  for (let at = Math.ceil(from / step) * step; at <= to; at += step) found.push(at);
  return { step, found };
}

function drawAxis() {
  axis.replaceChildren();
  const { step, found } = ticks(view.from, view.to, plotWidth() / 90);
  const digits = Math.max(0, Math.min(3, 3 - Math.floor(Math.log10(step))));
  for (const at of found) {
    const x = xOf(at);
    if (x > GUTTER + plotWidth() - 12) continue;
    el(axis, "text", { x, y: 14, "text-anchor": "middle", class: "muted" }, (at / 1000).toFixed(digits) + " s");
  }
  el(axis, "text", { x: 0, y: 14, class: "muted" }, "simulated time");
}

function drawOverview() {
  overview.replaceChildren();
  el(overview, "rect", { x: GUTTER, y: 4, width: plotWidth(), height: 26, fill: "var(--track)", rx: 3 });
  for (const fault of data.faults) {
    const x = wholeX(fault.at), until = wholeX(Math.min(END, fault.until ?? fault.at));
    el(overview, "rect", { x, y: 9, width: Math.max(2, until - x), height: 16, fill: familyOf(fault.kind), opacity: .55 });
  }
  if (failed()) el(overview, "rect", { x: wholeX(END) - 2, y: 4, width: 3, height: 26, fill: "var(--bad)" });
  const x = wholeX(view.from), width = Math.max(4, wholeX(view.to) - x);
  el(overview, "rect", { x, y: 3, width, height: 28, fill: "var(--ink)", "fill-opacity": .06, stroke: "var(--ink)", rx: 3 });
  el(overview, "text", { x: 0, y: 21, class: "muted" }, "whole run");
}

const failed = () => data.outcome.verdict !== "fine";
const local = (event, svg) => event.clientX - svg.getBoundingClientRect().left;

// Drags the view; `scale` tells how many milliseconds a pixel is.
function drags(svg, scale, begin) {
  svg.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    svg.setPointerCapture(event.pointerId);
    begin?.(local(event, svg));
    let last = event.clientX;
    const onMove = (event) => {
      move((event.clientX - last) * scale());
      last = event.clientX;
      svg.classList.add("moving");
    };
    const onUp = () => {
      svg.classList.remove("moving");
      svg.removeEventListener("pointermove", onMove);
    };
    svg.addEventListener("pointermove", onMove);
    svg.addEventListener("pointerup", onUp, { once: true });
    svg.addEventListener("pointercancel", onUp, { once: true });
  });
}
drags(lanesSvg, () => -(view.to - view.from) / plotWidth());
drags(overview, () => END / plotWidth(), (x) => {
  const at = (x - GUTTER) / plotWidth() * END;
  if (at < view.from || at > view.to) move(at - (view.from + view.to) / 2);
});

for (const svg of [lanesSvg, overview]) {
  svg.addEventListener("wheel", (event) => {
    const sideways = event.shiftKey ? event.deltaY || event.deltaX : event.deltaX;
    if (event.ctrlKey || event.metaKey) zoom(Math.exp(event.deltaY * .002), msOf(local(event, lanesSvg)));
    else if (sideways) move(sideways / plotWidth() * (view.to - view.from));
    else return;
    event.preventDefault();
  }, { passive: false });
}
lanesSvg.addEventListener("dblclick", (event) => zoom(.4, msOf(local(event, lanesSvg))));

window.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const width = view.to - view.from;
  const keys = {
    "+": () => zoom(.6), "=": () => zoom(.6), "-": () => zoom(1 / .6),
    ArrowLeft: () => move(-width * .2), ArrowRight: () => move(width * .2),
    "0": () => show(0, END), Home: () => show(0, width),
    e: () => show(END - Math.min(width, 3000), END), End: () => show(END - width, END),
  };
  const key = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (key) { key(); event.preventDefault(); }
});
window.addEventListener("resize", redraw);

const root = document.documentElement;
const dark = window.matchMedia("(prefers-color-scheme: dark)");
root.dataset.theme = dark.matches ? "dark" : "light";
dark.addEventListener("change", () => { root.dataset.theme = dark.matches ? "dark" : "light"; });
byId("theme").addEventListener("click", () => {
  root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
});
