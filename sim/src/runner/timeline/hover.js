// Details under the pointer, the words around the picture, and the first drawing.

const tip = byId("tip");
let pointer;
function drawCursor() {
  lanesSvg.querySelector(".cursor")?.remove();
  if (!pointer || pointer.x < GUTTER || pointer.x > GUTTER + plotWidth()) { tip.hidden = true; return; }
  const cursor = el(lanesSvg, "g", { class: "cursor", "pointer-events": "none" });
  el(cursor, "line", { x1: pointer.x, x2: pointer.x, y1: 0, y2: height, stroke: "var(--ink)", opacity: .35 });
  const ms = msOf(pointer.x);
  const lane = lanes.find((lane) => lane.tell && pointer.y >= lane.y - 2 && pointer.y < lane.y + lane.h + 2);
  const lines = lane?.tell(ms)?.filter(Boolean);
  tip.replaceChildren();
  const line = (tag, text, name = "") => {
    const node = document.createElement(tag);
    node.textContent = text;
    node.className = name;
    tip.appendChild(node);
  };
  if (lines) {
    line("b", lines[0]);
    lines.slice(1).forEach((text) => line("div", text));
  }
  line("div", seconds(ms), "muted");
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  tip.style.left = Math.max(4, pointer.clientX + 16 + box.width > innerWidth ? pointer.clientX - box.width - 12 : pointer.clientX + 16) + "px";
  tip.style.top = Math.max(4, Math.min(innerHeight - box.height - 6, pointer.clientY + 14)) + "px";
}
lanesSvg.addEventListener("pointermove", (event) => {
  const box = lanesSvg.getBoundingClientRect();
  pointer = { x: event.clientX - box.left, y: event.clientY - box.top, clientX: event.clientX, clientY: event.clientY };
  drawCursor();
});
lanesSvg.addEventListener("pointerleave", () => { pointer = undefined; drawCursor(); });

const outcome = data.outcome;
byId("title").textContent = `Seed ${outcome.seed}${outcome.scenario ? ` of ${outcome.scenario}` : ""}`;
byId("facts").textContent = [
  outcome.verdict, `${(outcome.simulated_us / 1e6).toFixed(1)} simulated s`, `${outcome.work.acknowledged} acknowledged`,
  `${outcome.work.unknown} unknown`, `${outcome.work.read} read`, `${outcome.work.commits} commits`, `commit ${outcome.commit}`,
].join(" · ");
if (failed()) {
  const box = byId("failure");
  box.hidden = false;
  const add = (tag, text) => { const node = document.createElement(tag); node.textContent = text; box.appendChild(node); };
  add("b", `${outcome.verdict}${outcome.invariant ? ` · ${outcome.invariant}` : ""} at ${seconds(data.end)}: `);
  add("span", outcome.what ?? "");
  add("code", data.replay);
}
if (outcome.story.length) {
  const story = byId("story");
  story.hidden = false;
  story.querySelector("pre").textContent = outcome.story.join("\n");
}
const legend = byId("legend");
function key(text, draw, bold) {
  const item = document.createElement("span");
  if (draw) {
    const svg = el(item, "svg", { width: 16, height: 12, style: "width:16px" });
    draw(svg);
  }
  const words = document.createElement(bold ? "b" : "span");
  words.textContent = text;
  item.appendChild(words);
  legend.appendChild(item);
}
const swatch = (fill, y = 1, h = 10, extra = {}) => (svg) => el(svg, "rect", { x: 0, y, width: 16, height: h, fill, rx: 2, ...extra });
for (const id of Object.keys(data.nodes)) key(`node ${id}`, swatch(nodeColour(id)));
key("starting", swatch(nodeColour(1), 1, 10, { opacity: .35 }));
key("paused", (svg) => { swatch(nodeColour(1))(svg); swatch("var(--plot)", 3, 6, { opacity: .7 })(svg); });
key("down", (svg) => el(svg, "line", { x1: 0, x2: 16, y1: 6, y2: 6, stroke: "var(--muted)", "stroke-dasharray": "2 4" }));
key("leads Raft", swatch("var(--ink)", 4, 4));
key("fenced, unassigned", swatch("url(#hatch)"));
key("no leader", (svg) => el(svg, "rect", { x: 1, y: 1.5, width: 14, height: 9, fill: "none", stroke: "var(--bad)", "stroke-dasharray": "3 2" }));
key("in the ISR", (svg) => [1, 2, 3].forEach((id) => swatch(nodeColour(id), id * 4 - 3.5, 3)(svg)));
key("not in it", (svg) => el(svg, "rect", { x: 0, y: 5, width: 16, height: 1, fill: "var(--muted)" }));
key("high watermark", swatch("var(--ink)", 5, 1.5));
key("log end", swatch("var(--muted)", 5, 1.5));
key("acknowledged", swatch("var(--ack)"));
key("read", swatch("var(--read)"));
key("unknown", swatch("var(--unknown)"));
key("failed", swatch("var(--bad)"));
key("Faults:", undefined, true);
for (const [name] of FAMILIES) key(name === "order" ? "membership" : name, swatch(`var(--${name})`));
redraw();
