// Topics, and one topic with its partitions and records.

import { useState } from "react";
import { query } from "../api";
import { compact, count, rate } from "../format";
import { PagedTable } from "../paged";
import { Partitions } from "./partitions";
import { Records } from "./records";
import { go, link } from "../route";
import type { TopicSummary } from "../types";
import { Badge, Empty, Panel } from "../ui";
import { useLoad } from "../api";

function Health({ topic }: { topic: TopicSummary }) {
  if (topic.leaderless > 0) return <Badge tone="bad">{topic.leaderless} without a leader</Badge>;
  if (topic.underReplicated > 0) return <Badge tone="warn">{topic.underReplicated} under-replicated</Badge>;
  return <Badge tone="good">replicated</Badge>;
}

function List() {
  const [search, setSearch] = useState("");
  return (
    <Panel
      title="Topics"
      aside={<input type="search" placeholder="Search" aria-label="Search topics by name" value={search} onChange={(event) => setSearch(event.target.value)} />}
    >
      <PagedTable<TopicSummary>
        label="Topics"
        path={(page, size) => `/v1/cluster/topics${query({ search, page, size })}`}
        rows={(answer: { topics: TopicSummary[] }) => answer.topics}
        rowKey={(topic) => topic.name}
        everyMs={2_000}
        maxRows={18}
        open={(topic) => go(link("topics", topic.name))}
        empty={
          search === "" ? (
            <Empty title="No topics so far">
              The first event makes one: <code>curl -d '{'{"value":"hello"}'}' {location.origin}/produce</code>
            </Empty>
          ) : (
            <Empty title="No topic has that in its name" />
          )
        }
        columns={[
          { title: "Topic", cell: (topic) => <a href={link("topics", topic.name)} tabIndex={-1}>{topic.name}</a>, width: "minmax(8rem, 2fr)" },
          { title: "Partitions", cell: (topic) => compact(topic.partitions), width: "5.5rem", number: true },
          { title: "Copies", cell: (topic) => topic.replicationFactor, width: "4rem", number: true, extra: true },
          { title: "In", cell: (topic) => rate(topic.rate), width: "5.5rem", number: true },
          { title: "Records", cell: (topic) => count(topic.end), width: "minmax(6rem, 1fr)", number: true, extra: true },
          { title: "Queue", cell: (topic) => compact(topic.depth), width: "5rem", number: true, extra: true },
          { title: "Replicas", cell: (topic) => <Health topic={topic} />, width: "minmax(9rem, 1fr)", extra: true },
        ]}
      />
    </Panel>
  );
}

interface Described {
  name: string;
  id: string;
  partitions: unknown[];
  configs: Record<string, string>;
}

function Topic({ name, parameters }: { name: string; parameters: URLSearchParams }) {
  const { data, problem } = useLoad<Described>(`/v1/topics/${encodeURIComponent(name)}`, 10_000);
  const wanted = Number(parameters.get("partition") ?? 0);
  const partition = Number.isInteger(wanted) && wanted >= 0 ? wanted : 0;
  const configs = Object.entries(data?.configs ?? {});
  return (
    <>
      <p className="crumbs">
        <a href={link("topics")}>Topics</a> / <strong>{name}</strong>
      </p>
      {problem !== undefined && problem.status === 404 ? (
        <Panel>
          <Empty title={`There is no topic ${name}`}>It may have been deleted.</Empty>
        </Panel>
      ) : (
        <>
          <Records key={name} topic={name} partitions={data?.partitions.length} partition={partition} />
          <Panel title="Partitions" aside={configs.length > 0 && <span className="muted configs">{configs.map(([key, value]) => `${key}=${value}`).join("  ")}</span>}>
            <Partitions topic={name} open={(row) => go(`${link("topics", name)}?partition=${row.partition}`)} />
          </Panel>
        </>
      )}
    </>
  );
}

export function TopicsPage({ name, parameters }: { name: string | undefined; parameters: URLSearchParams }) {
  return (
    <>
      <h1 className="sr">{name === undefined ? "Topics" : `Topic ${name}`}</h1>
      {name === undefined ? <List /> : <Topic name={name} parameters={parameters} />}
    </>
  );
}
