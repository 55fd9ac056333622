// What goes in, what comes out, how long it takes, and what waits.

import { Demo } from "./demo";
import { Events } from "./events";
import { compact, millis, rate } from "../format";
import type { Live } from "../live";
import { Plot, type Series } from "../plot";
import { link } from "../route";
import { Badge, Empty, Meter, Panel, Stat, groupTone } from "../ui";

const RATES: Series[] = [
  { label: "in", color: "blue", value: (p) => p.in, fill: true },
  { label: "out", color: "green", value: (p) => p.out },
];
const percentiles = (of: "produce" | "ingest"): Series[] => [
  { label: "p50", color: "green", value: (p) => p[of]?.[0], sparse: true },
  { label: "p95", color: "blue", value: (p) => p[of]?.[1], sparse: true },
  { label: "p99", color: "orange", value: (p) => p[of]?.[2], sparse: true },
];
const PRODUCE = percentiles("produce");
const INGEST = percentiles("ingest");
const WAITING: Series[] = [
  { label: "queue depth", color: "blue", value: (p) => p.depth, fill: true },
  { label: "lag of all groups", color: "orange", value: (p) => p.lag },
];
const ANSWERS: Series[] = [
  { label: "errors (5xx)", color: "red", value: (p) => p.errors },
  { label: "refused (429)", color: "orange", value: (p) => p.refused },
];

const perSecond = (value: number | null) => rate(value);
const records = (value: number | null) => compact(value);

export function Overview({ live, theme }: { live: Live; theme: string }) {
  const { tick, cluster, history } = live;
  const silent = cluster?.nodes.filter((node) => !node.answers || node.state !== "serving").length ?? 0;
  const nodes = cluster?.nodes.length ?? 0;
  const troubled = (cluster?.underReplicated ?? 0) + (cluster?.leaderless ?? 0);
  return (
    <>
      <h1 className="sr">Overview</h1>
      <div className="stats">
        <Stat label="Events in" value={rate(tick?.in)} note="whole cluster" />
        <Stat label="Events out" value={rate(tick?.out)} note="read by groups" />
        <Stat label="Write p99" value={millis(tick?.produce?.[2] ?? tick?.ingest?.[2])} note="this gateway, last second" />
        <Stat label="Queue depth" value={compact(tick?.depth)} note="behind the slowest readers" />
        <Stat
          label="Errors, refused"
          value={tick === null ? "–" : `${compact(tick.errors)}, ${compact(tick.refused)}`}
          note="this gateway, a second"
          tone={(tick?.errors ?? 0) > 0 ? "bad" : (tick?.refused ?? 0) > 0 ? "warn" : undefined}
        />
        <Stat
          label="Nodes"
          value={cluster === null ? "–" : `${nodes - silent} of ${nodes}`}
          note={troubled > 0 ? `${compact(cluster?.underReplicated)} partitions under-replicated` : "all partitions replicated"}
          tone={silent > 0 ? "bad" : troubled > 0 ? "warn" : undefined}
        />
      </div>
      <Demo />
      <div className="grid two">
        <Panel title="Events per second">
          <Plot label="Events per second" points={history} series={RATES} format={perSecond} theme={theme} />
        </Panel>
        <Panel title="Waiting" aside={<span className="muted">records</span>}>
          <Plot label="Records waiting" points={history} series={WAITING} format={records} theme={theme} />
        </Panel>
        <Panel title="Enqueue latency: HTTP writes" aside={<span className="muted">this gateway</span>}>
          <Plot label="Latency of HTTP writes" points={history} series={PRODUCE} format={millis} theme={theme} />
        </Panel>
        <Panel title="Enqueue latency: ingested events" aside={<span className="muted">this gateway</span>}>
          <Plot label="Latency of ingested events" points={history} series={INGEST} format={millis} theme={theme} />
        </Panel>
        <Panel title="Errors and refusals" aside={<span className="muted">this gateway, {rate(tick?.requests)} requests</span>}>
          <Plot label="Errors and refusals per second" points={history} series={ANSWERS} format={perSecond} theme={theme} />
        </Panel>
        <Panel title="What happened" aside={<a href={link("cluster")}>Cluster</a>}>
          <Events events={live.events.slice(0, 40)} />
        </Panel>
        <Panel title="Longest queues" aside={<a href={link("topics")}>Topics</a>}>
          {tick === null || tick.deepest.length === 0 ? (
            <Empty title="Nothing waits">Queues are what lies between the end of a partition and its slowest reader.</Empty>
          ) : (
            <div className="scroll">
              <table>
                <thead>
                  <tr><th>Partition</th><th>Slowest reader</th><th className="num">Depth</th><th className="bar" /></tr>
                </thead>
                <tbody>
                  {tick.deepest.map((queue) => (
                    <tr key={`${queue.topic}-${queue.partition}`}>
                      <td><a href={link("topics", queue.topic)}>{queue.topic}</a> · {queue.partition}</td>
                      <td className="muted">{queue.slowest}</td>
                      <td className="num">{compact(queue.depth)}</td>
                      <td className="bar"><Meter part={queue.depth} whole={tick.deepest[0]?.depth ?? 0} /></td>
                    </tr>
                  ))}
                </tbody>
              </table>
            </div>
          )}
        </Panel>
        <Panel title="Lag by group" aside={<a href={link("groups")}>{compact(tick?.groupCount ?? 0)} in all</a>}>
          {tick === null || tick.groups.length === 0 ? (
            <Empty title="No group reads">A consumer group shows here once it has committed an offset.</Empty>
          ) : (
            <div className="scroll">
              <table>
                <thead>
                  <tr><th>Group</th><th>State</th><th className="num">Reads</th><th className="num">Lag</th></tr>
                </thead>
                <tbody>
                  {tick.groups.map((group) => (
                    <tr key={group.group}>
                      <td>{group.state === "View" ? group.group : <a href={link("groups", group.group)}>{group.group}</a>}</td>
                      <td><Badge tone={groupTone(group.state)}>{group.state}</Badge></td>
                      <td className="num">{rate(group.rate)}</td>
                      <td className="num">{compact(group.lag)}</td>
                    </tr>
                  ))}
                </tbody>
              </table>
            </div>
          )}
        </Panel>
      </div>
    </>
  );
}
