// The cluster as a picture: each node with the replicas that it holds, and who leads.

import { useEffect, useState } from "react";
import { query, useLoad } from "../api";
import { Events } from "./events";
import { Partitions } from "./partitions";
import { compact, plural, since } from "../format";
import type { Live } from "../live";
import type { ClusterNode, PartitionRow } from "../types";
import { Badge, Empty, Panel, Stat, Tabs, Trouble, type Tone } from "../ui";

const DRAWN = 1000;
const CELL = 11;
const FLASH_MS = 4_000;

function verdict(node: ClusterNode, now: number): [Tone, string] {
  if (node.state === "fenced") return ["bad", node.answers ? "Fenced: catching up" : "Down: fenced by the controller"];
  if (!node.answers) return ["bad", `Not answering for ${since(node.silentSince ?? now, now)}`];
  return node.state === "draining" ? ["warn", "Draining"] : ["good", "Serving"];
}

function role(row: PartitionRow, node: number): "leader" | "insync" | "behind" {
  if (row.leader === node) return "leader";
  return row.isr.includes(node) ? "insync" : "behind";
}

const ROLES = { leader: "leads", insync: "in sync", behind: "not in sync" };

function Replicas(props: { node: number; rows: PartitionRow[]; moved: Set<string>; lost: boolean }) {
  const mine = props.rows.filter((row) => row.replicas.includes(props.node));
  const across = Math.max(8, Math.ceil(Math.sqrt(mine.length * 3)));
  const height = Math.max(1, Math.ceil(mine.length / across)) * CELL;
  const counts = { leader: 0, insync: 0, behind: 0 };
  for (const row of mine) counts[role(row, props.node)] += 1;
  const spoken = `${counts.leader} led, ${counts.insync} in sync, ${counts.behind} not in sync`;
  return (
    <svg className={`replicas ${props.lost ? "lost" : ""}`} viewBox={`0 0 ${across * CELL} ${height}`} style={{ maxWidth: across * CELL * 1.6 }} role="img" aria-label={spoken}>
      {mine.map((row, index) => {
        const kind = role(row, props.node);
        const moved = props.moved.has(`${row.topic}-${row.partition}`);
        return (
          <rect
            key={`${row.topic}-${row.partition}-${row.leaderEpoch}`}
            className={`${kind} ${moved && kind === "leader" ? "moved" : ""}`}
            x={(index % across) * CELL + 1}
            y={Math.floor(index / across) * CELL + 1}
            width={CELL - 2}
            height={CELL - 2}
            rx="2"
          >
            <title>{`${row.topic}-${row.partition}: ${ROLES[kind]}, epoch ${row.leaderEpoch}`}</title>
          </rect>
        );
      })}
    </svg>
  );
}

function Picture({ live, now }: { live: Live; now: number }) {
  const cluster = live.cluster;
  const path = cluster === null ? null : `/v1/cluster/partitions${query({ size: DRAWN })}`;
  // Drawn anew when the cluster changes, and now and then.
  const { data, problem } = useLoad<{ total: number; partitions: PartitionRow[] }>(path, 5_000, cluster?.version);
  if (cluster === null) return <Empty title="Looking for the cluster" />;
  const moved = new Set(
    live.events.flatMap((event) => (event.kind === "election" && now - event.t < FLASH_MS ? [`${event.topic}-${event.partition}`] : [])),
  );
  return (
    <>
      {problem !== undefined && <Trouble problem={problem} retrying />}
      <div className="nodes">
        {cluster.nodes.map((node) => {
          const [tone, words] = verdict(node, now);
          return (
            <article key={node.id} className={`node ${tone}`} aria-label={`Node ${node.id}: ${words}`} data-node={node.id}>
              <header>
                <span className={`dot ${tone}`} aria-hidden="true" />
                <h3>Node {node.id}</h3>
                {cluster.controller === node.id && <Badge tone="info" title="The controller runs here: it leads the agreement on metadata">controller</Badge>}
              </header>
              <p className={`verdict ${tone}`}>{words}</p>
              {node.error !== undefined && <p className="why" title={node.error}>{node.error}</p>}
              <Replicas node={node.id} rows={data?.partitions ?? []} moved={moved} lost={!node.answers || node.state === "fenced"} />
              <dl>
                <div><dt>leads</dt><dd>{compact(node.leads)}</dd></div>
                <div><dt>replicas</dt><dd>{compact(node.replicas)}</dd></div>
                <div><dt>gRPC</dt><dd>{node.grpc || "–"}</dd></div>
                <div><dt>HTTP</dt><dd>{node.http || "–"}</dd></div>
                {node.rack !== "" && <div><dt>rack</dt><dd>{node.rack}</dd></div>}
              </dl>
            </article>
          );
        })}
      </div>
      <p className="key">
        <span className="swatch leader" /> leader <span className="swatch insync" /> in-sync follower <span className="swatch behind" /> not in sync
        {data !== undefined && data.total > DRAWN && <span> · the first {DRAWN} of {plural(data.total, "partition")} are drawn; the list has all</span>}
      </p>
    </>
  );
}

type Which = "all" | "under-replicated" | "leaderless";

export function ClusterPage({ live }: { live: Live }) {
  const [now, setNow] = useState(() => Date.now());
  const [which, setWhich] = useState<Which>("all");
  const cluster = live.cluster;
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), 1000);
    return () => clearInterval(timer);
  }, []);
  useEffect(() => setNow(Date.now()), [live.events]);
  return (
    <>
      <h1 className="sr">Cluster</h1>
      <div className="stats">
        <Stat label="Controller" value={cluster?.controller == null ? "–" : `Node ${cluster.controller}`} />
        <Stat label="Topics" value={compact(cluster?.topics)} />
        <Stat label="Partitions" value={compact(cluster?.partitions)} />
        <Stat label="Under-replicated" value={compact(cluster?.underReplicated)} tone={(cluster?.underReplicated ?? 0) > 0 ? "warn" : undefined} />
        <Stat label="Without a leader" value={compact(cluster?.leaderless)} tone={(cluster?.leaderless ?? 0) > 0 ? "bad" : undefined} />
      </div>
      <Panel title="Nodes and replicas">
        <Picture live={live} now={now} />
      </Panel>
      <div className="grid wide-left">
        <Panel
          title="Partitions"
          aside={
            <Tabs<Which>
              label="Which partitions"
              tabs={[["all", "All"], ["under-replicated", "Under-replicated"], ["leaderless", "No leader"]]}
              now={which}
              go={setWhich}
            />
          }
        >
          <Partitions state={which === "all" ? undefined : which} />
        </Panel>
        <Panel title="What happened">
          <Events events={live.events} />
        </Panel>
      </div>
    </>
  );
}
