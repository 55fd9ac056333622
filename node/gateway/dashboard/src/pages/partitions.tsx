// A list of partitions, however many.

import { query } from "../api";
import { NONE, compact, count } from "../format";
import { useLive } from "../live";
import { PagedTable } from "../paged";
import { go, link } from "../route";
import type { PartitionRow } from "../types";
import { Badge, Empty } from "../ui";

function Leader({ row }: { row: PartitionRow }) {
  return row.leader === null ? <Badge tone="bad">none</Badge> : <>{row.leader}</>;
}

function InSync({ row }: { row: PartitionRow }) {
  const behind = row.replicas.filter((id) => !row.isr.includes(id));
  return (
    <>
      {row.isr.join(" ")}
      {behind.length > 0 && <span className="lost-replicas" title="not in sync">{behind.join(" ")}</span>}
    </>
  );
}

export function Partitions(props: { topic?: string; state?: string | undefined; open?: (row: PartitionRow) => void }) {
  const version = useLive().cluster?.version;
  const ofOne = props.topic !== undefined;
  return (
    <PagedTable<PartitionRow>
      label="Partitions"
      path={(page, size) => `/v1/cluster/partitions${query({ topic: props.topic, state: props.state, page, size })}`}
      rows={(answer: { partitions: PartitionRow[] }) => answer.partitions}
      rowKey={(row) => `${row.topic}-${row.partition}`}
      everyMs={2_000}
      version={version}
      open={props.open ?? ((row) => go(`${link("topics", row.topic)}?partition=${row.partition}`))}
      empty={
        <Empty title={props.state === undefined ? "No partitions" : "None"}>
          {props.state === undefined ? "Partitions come with topics." : "Every partition is as it should be."}
        </Empty>
      }
      columns={[
        ...(ofOne ? [] : [{ title: "Topic", cell: (row: PartitionRow) => row.topic, width: "minmax(7rem, 2fr)" }]),
        { title: ofOne ? "Partition" : "No.", cell: (row) => row.partition, width: ofOne ? "5rem" : "3rem", number: true },
        { title: "Leader", cell: (row) => <Leader row={row} />, width: "4.2rem", number: true },
        { title: "In sync", cell: (row) => <InSync row={row} />, width: "minmax(5rem, 1fr)" },
        { title: "Epoch", cell: (row) => row.leaderEpoch, width: "3.6rem", number: true, extra: true },
        { title: "End", cell: (row) => count(row.highWatermark), width: "minmax(5rem, 1fr)", number: true, extra: true },
        { title: "Queue", cell: (row) => (row.depth === null ? NONE : compact(row.depth)), width: "4.5rem", number: true },
      ]}
    />
  );
}
