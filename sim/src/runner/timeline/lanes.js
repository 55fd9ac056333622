// What is drawn: a lane is { y, h, draw(svg), tell(ms) }, laid out once; drawing follows the view.

const FAMILIES = [
  ["process", ["crash", "power loss", "crash point", "pause", "rolling restart"]],
  ["network", ["partition", "one-way partition", "loss", "delay", "slow link"]],
  ["disk", ["slow disk", "write error", "fsync error", "disk full", "bit rot", "wiped disk"]],
  ["clock", ["clock jump", "clock drift"]],
  ["order", ["membership change under partition"]],
  ["client", ["client crash", "client cut off"]],
];
const family = (kind) => (FAMILIES.find(([, kinds]) => kinds.includes(kind)) ?? ["client"])[0];
const familyOf = (kind) => `var(--${family(kind)})`;
const nodeColour = (id) => `var(--n${(id - 1) % 7 + 1})`;
const namesNode = (text, id) => new RegExp(`\\bnode-${id}\\b`).test(text) || text === "every node";

// The value that holds at `ms`; spans are [[since, value], …].
function at(spans, ms) {
  let low = 0, high = spans.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (spans[middle][0] <= ms) low = middle + 1; else high = middle;
  }
  return low ? spans[low - 1] : undefined;
}
// Calls `draw(x, width, value, since, until)` for what of the spans is in view.
function spansInView(spans, draw) {
  spans.forEach(([since, value], n) => {
    const until = n + 1 < spans.length ? spans[n + 1][0] : END;
    if (until < view.from || since > view.to) return;
    const x = Math.max(GUTTER, xOf(since));
    draw(x, Math.min(GUTTER + plotWidth(), xOf(until)) - x, value, since, until);
  });
}
function bar(svg, x, y, width, height, attributes, text, fits) {
  el(svg, "rect", { x, y, width: Math.max(.75, width), height, rx: Math.min(2, width / 2), ...attributes });
  if (text && (fits || width > text.length * 6.2 + 8))
    el(svg, "text", { x: x + 5, y: y + height / 2 + 3.6, class: "bar" }, text);
}
const fitting = (width, ...texts) => texts.find((text) => width > text.length * 6.2 + 8);
const label = (svg, lane, text, second) => {
  const named = failed() && data.outcome.what && mentions(data.outcome.what, text);
  el(svg, "text", { x: 4, y: lane.y + (second ? 12 : lane.h / 2 + 4), class: named ? "bad" : "" }, text);
  if (second) el(svg, "text", { x: 4, y: lane.y + 25, class: "muted" }, second);
};
const mentions = (text, name) =>
  new RegExp(`(^|[^\\w-])${name.replace(/[^\w-]/g, "\\$&")}($|[^\\w-])`).test(text);

const lanes = [];
let height = 4;
function heading(text) {
  lanes.push({ y: height, h: 20, draw: (svg, lane) => el(svg, "text", { x: 0, y: lane.y + 15, class: "head" }, text) });
  height += 22;
}
function lane(h, draw, tell, gap = 4) {
  lanes.push({ y: height, h, draw, tell });
  height += h + gap;
}

// Faults are packed into rows once, for the whole run, so that zooming moves nothing up or down.
const rows = [];
for (const fault of data.faults) {
  const until = Math.max(fault.until ?? fault.at, fault.at + END * .004);
  let row = rows.find((row) => row.until <= fault.at);
  if (!row) rows.push(row = { until: 0, faults: [] });
  row.until = until;
  row.faults.push(fault);
}
const faultEnd = (fault) => Math.min(END, fault.until ?? fault.at);
function drawFaults(svg, lane, faults) {
  faults.forEach((fault, n) => {
    const x = xOf(fault.at), until = xOf(faultEnd(fault)), next = faults[n + 1] ? xOf(faults[n + 1].at) : GUTTER + plotWidth();
    if (until < GUTTER || x > GUTTER + plotWidth()) return;
    const from = Math.max(GUTTER, x), width = Math.max(3, Math.min(until, GUTTER + plotWidth()) - from);
    el(svg, "rect", { x: from, y: lane.y, width, height: lane.h, rx: 2, fill: familyOf(fault.kind), opacity: .8 });
    const text = `${fault.kind}: ${fault.what}`, room = (text) => text.length * 5.6 + 8;
    const shown = [text, fault.kind].find((text) => room(text) < width);
    if (shown) el(svg, "text", { x: from + 4, y: lane.y + 10.5, class: "bar" }, shown);
    else {
      const beside = [text, fault.kind].find((text) => room(text) < next - from - width);
      if (beside) el(svg, "text", { x: from + width + 3, y: lane.y + 10.5, class: "muted" }, beside);
    }
  });
}
heading(`Faults (${data.faults.length})`);
rows.forEach(({ faults }) => lane(14, (svg, lane) => drawFaults(svg, lane, faults), (ms) => {
  const near = (view.to - view.from) / plotWidth() * 4;
  const hit = faults.filter((fault) => ms >= fault.at - near && ms <= faultEnd(fault) + near).pop();
  return hit && [`${hit.kind}: ${hit.what}`, span(hit.at, hit.until ?? hit.at)];
}));
const span = (since, until) => until > since
  ? `${seconds(since)} to ${seconds(until)} (${seconds(until - since)})` : `at ${seconds(since)}`;

heading("Nodes");
for (const [id, node] of Object.entries(data.nodes)) {
  const faults = data.faults.filter((fault) => namesNode(fault.what, id));
  lane(24, (svg, lane) => {
    label(svg, lane, `node-${id}`);
    const y1 = lane.y + 12.5, x2 = GUTTER + plotWidth();
    el(svg, "line", { x1: GUTTER, x2, y1, y2: y1, stroke: "var(--muted)", "stroke-dasharray": "2 4" });
    spansInView(node.state, (x, width, state) => {
      if (state === "up") bar(svg, x, lane.y + 6, width, 13, { fill: nodeColour(id) });
      else if (state === "starting") bar(svg, x, lane.y + 6, width, 13, { fill: nodeColour(id), opacity: .35 });
      else if (state.startsWith("ended")) el(svg, "text", { x, y: lane.y + 17, class: "bad" }, "✕");
    });
    spansInView(node.fenced ?? [], (x, width, fenced) =>
      fenced && bar(svg, x, lane.y + 9, width, 7, { fill: "url(#hatch)" }));
    spansInView(node.raft, (x, width, term) => {
      if (term === null) return;
      bar(svg, x, lane.y + 2, width, 4, { fill: "var(--ink)" });
      const text = `leads Raft, term ${term}`, room = text.length * 6 + 10;
      if (width > room) bar(svg, x, lane.y + 2, room, 16, { fill: "var(--ink)" }, text, true);
    });
    for (const fault of faults) {
      const x = Math.max(GUTTER, xOf(fault.at)), until = Math.min(x2, xOf(faultEnd(fault)));
      if (until < GUTTER || x > x2) continue;
      const width = Math.max(3, until - x);
      if (fault.kind === "pause") bar(svg, x, lane.y + 8, width, 9, { fill: "var(--plot)", opacity: .7 });
      el(svg, "rect", { x, y: lane.y + 20, width, height: 4, fill: familyOf(fault.kind) });
    }
  }, (ms) => {
    const state = at(node.state, ms), term = at(node.raft, ms), fenced = at(node.fenced ?? [], ms);
    const now = faults.filter((fault) => fault.at <= ms && ms <= Math.max(faultEnd(fault), fault.at + 50));
    return [`node-${id}: ${state ? state[1] : "not there yet"}`, state && `since ${seconds(state[0])}`,
      term?.[1] != null && `leads Raft in term ${term[1]} since ${seconds(term[0])}`,
      fenced?.[1] && "fenced", ...now.map((fault) => `${fault.kind}: ${fault.what}, ${span(fault.at, fault.until ?? fault.at)}`)];
  });
}

// High watermark and log end, drawn 13 pixels high over what they are in the part that is shown.
function drawOffsets(svg, base, offsets) {
  const before = at(offsets.map((point) => [point[0], point]), view.from);
  const shown = offsets.filter(([ms]) => ms > view.from && ms <= view.to);
  if (before) shown.unshift([view.from, ...before[1].slice(1)]);
  if (!shown.length) return;
  const low = Math.min(...shown.map(([, high]) => high));
  const high = Math.max(low + 1, ...shown.map(([, , end]) => end));
  const y = (offset) => (base - (offset - low) / (high - low) * 13).toFixed(1);
  const right = Math.min(GUTTER + plotWidth(), xOf(END)).toFixed(1), left = xOf(shown[0][0]).toFixed(1);
  const stair = (which) => (point, n) => `${n ? "H" : "M"}${xOf(point[0]).toFixed(1)}${n ? "V" : " "}${y(point[which])}`;
  const path = (which) => shown.map(stair(which)).join("") + `H${right}`;
  el(svg, "path", { d: `${path(1)}V${base}H${left}Z`, fill: "var(--ink)", opacity: .1 });
  el(svg, "path", { d: path(2), fill: "none", stroke: "var(--muted)" });
  el(svg, "path", { d: path(1), fill: "none", stroke: "var(--ink)", "stroke-width": 1.25 });
}

heading("Partitions");
for (const [name, partition] of Object.entries(data.partitions)) {
  const replicas = [...new Set(partition.roles.flatMap(([, roles]) => roles.replicas))].sort((a, b) => a - b);
  const h = 14 + replicas.length * 4 + 14;
  lane(h, (svg, lane) => {
    label(svg, lane, name, `to offset ${partition.offsets.at(-1)?.[1] ?? 0}`);
    spansInView(partition.roles, (x, width, roles) => {
      if (roles.leader === null)
        bar(svg, x, lane.y + .5, width, 11, { fill: "none", stroke: "var(--bad)", "stroke-dasharray": "3 2" });
      else {
        const { leader, epoch } = roles;
        const text = fitting(width, `node ${leader} · epoch ${epoch}`, `${leader} · ${epoch}`, `${leader}`);
        bar(svg, x, lane.y, width, 12, { fill: nodeColour(leader) }, text);
      }
    });
    replicas.forEach((id, n) => spansInView(partition.roles, (x, width, roles) => {
      const y = lane.y + 14 + n * 4, kept = roles.replicas.includes(id), inside = roles.isr.includes(id);
      if (inside) el(svg, "rect", { x, y, width: Math.max(.75, width), height: 3, fill: nodeColour(id) });
      else if (kept) el(svg, "rect", { x, y: y + 1, width: Math.max(.75, width), height: 1, fill: "var(--muted)", opacity: .6 });
    }));
    drawOffsets(svg, lane.y + lane.h, partition.offsets);
  }, (ms) => {
    const found = at(partition.roles, ms), offsets = at(partition.offsets.map((o) => [o[0], o]), ms);
    if (!found) return [name, "not there yet"];
    const [since, roles] = found;
    return [`${name}: ${roles.leader === null ? "no leader" : `leader node ${roles.leader}`}, epoch ${roles.epoch}`,
      `ISR ${roles.isr.join(" ") || "empty"} of ${roles.replicas.join(" ")}${roles.elr.length ? `, ELR ${roles.elr.join(" ")}` : ""}`,
      offsets && `high watermark ${offsets[1][1]}, log end ${offsets[1][2]}`, `since ${seconds(since)}`];
  }, 9);
}

const members = (group) => group.members === 1 ? "1 member" : `${group.members} members`;
if (Object.keys(data.groups).length) heading("Groups");
for (const [name, spans] of Object.entries(data.groups)) {
  lane(16, (svg, lane) => {
    label(svg, lane, name);
    spansInView(spans, (x, width, group) => bar(svg, x, lane.y + 1, Math.max(1, width - 1), 14,
      { fill: group.assigned ? "var(--client)" : "url(#hatch)", opacity: group.members ? 1 : .3 },
      group.assigned ? fitting(width, `generation ${group.generation} · ${members(group)}`, `${group.generation}`) : ""));
  }, (ms) => {
    const found = at(spans, ms);
    if (!found) return [name, "not there yet"];
    const [since, group] = found;
    return [`group ${name}: generation ${group.generation}`,
      `${members(group)}, ${group.assigned ? "assigned" : "not assigned yet"}`, `since ${seconds(since)}`];
  });
}

heading("Clients");
for (const [name, client] of Object.entries(data.clients)) {
  const buckets = Object.entries(client.buckets).map(([number, bucket]) => [number * data.bucket, bucket]);
  const good = (b) => b.acknowledged + b.read + b.commits;
  const most = Math.max(1, ...buckets.map(([, b]) => good(b)));
  const reads = buckets.reduce((sum, [, b]) => sum + b.read, 0) > buckets.reduce((sum, [, b]) => sum + b.acknowledged, 0);
  lane(24, (svg, lane) => {
    label(svg, lane, name);
    const base = lane.y + 23;
    spansInView(client.up, (x, width, up) => up && el(svg, "rect", { x, y: lane.y, width, height: 24, fill: "var(--track)", opacity: .55 }));
    let path = "";
    for (const [since, bucket] of buckets) {
      const x = Math.max(GUTTER, xOf(since)), until = Math.min(GUTTER + plotWidth(), xOf(since + data.bucket));
      if (until <= GUTTER || x >= GUTTER + plotWidth()) continue;
      if (good(bucket)) path += `M${x.toFixed(1)} ${base}V${(base - 2 - good(bucket) / most * 18).toFixed(1)}H${until.toFixed(1)}V${base}Z`;
      const bad = [[bucket.unknown, "var(--unknown)"], [bucket.failed, "var(--bad)"]].filter(([count]) => count);
      bad.forEach(([, colour], n) => el(svg, "rect", { x, y: lane.y + n * 6, width: Math.max(3, until - x), height: 6, fill: colour }));
    }
    el(svg, "path", { d: path, fill: reads ? "var(--read)" : "var(--ack)" });
  }, (ms) => {
    const start = Math.floor(ms / data.bucket) * data.bucket, bucket = client.buckets[start / data.bucket];
    const up = at(client.up, ms);
    return [`${name}${up && !up[1] ? ": dead" : ""}`, `${seconds(start)} to ${seconds(start + data.bucket)}`,
      bucket ? Object.entries(bucket).filter(([, n]) => n).map(([what, n]) => `${what} ${n}`).join(", ") : "nothing"];
  });
}
height += 8;

function drawLanes() {
  lanesSvg.replaceChildren();
  lanesSvg.setAttribute("height", height);
  const pattern = el(el(lanesSvg, "defs", {}), "pattern",
    { id: "hatch", width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" });
  el(pattern, "rect", { width: 6, height: 6, fill: "var(--track)" });
  el(pattern, "rect", { width: 2.5, height: 6, fill: "var(--muted)" });
  el(lanesSvg, "rect", { x: GUTTER, y: 0, width: plotWidth(), height, fill: "var(--plot)" });
  for (const at of ticks(view.from, view.to, plotWidth() / 90).found)
    el(lanesSvg, "line", { x1: xOf(at), x2: xOf(at), y1: 0, y2: height, stroke: "var(--grid)" });
  for (const lane of lanes) lane.draw(lanesSvg, lane);
  if (failed() && view.to >= END - 1) {
    const x = xOf(END);
    el(lanesSvg, "line", { x1: x, x2: x, y1: 0, y2: height, stroke: "var(--bad)", "stroke-width": 2 });
    el(lanesSvg, "text", { x: x - 6, y: 15, "text-anchor": "end", class: "bad" }, `${data.outcome.invariant ?? data.outcome.verdict} ▸`);
  }
  drawCursor();
}
