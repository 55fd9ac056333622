// The ingest pipeline: send events, see what became of them, and ask about them.

import { useState } from "react";
import { useLoad } from "../api";
import { Aggregates } from "./ingest_aggregates";
import { IngestEvents } from "./ingest_events";
import { Submit } from "./ingest_submit";
import { compact, count } from "../format";
import { link } from "../route";
import type { IngestStatus } from "../types";
import { Panel, Stat, Tabs, Trouble } from "../ui";

type Tab = "aggregates" | "processed" | "rejected" | "failed";

export function IngestPage() {
  const { data: status, problem, reload } = useLoad<IngestStatus>("/get_status", 2_000);
  const [tab, setTab] = useState<Tab>("aggregates");
  // Answers of the lists change with every submission.
  const [sent, setSent] = useState(0);
  if (problem !== undefined && problem.status === 503 && status === undefined) {
    return (
      <Panel title="Ingest">
        <Trouble problem={problem} retrying />
      </Panel>
    );
  }
  const counts = status?.counts;
  return (
    <>
      <h1 className="sr">Ingest</h1>
      {problem !== undefined && <Trouble problem={problem} retrying />}
      <div className="stats">
        <Stat label="Processed" value={count(counts?.processed)} note="counted once each" />
        <Stat label="Duplicates" value={count(counts?.duplicates)} note="recognised resends" />
        <Stat label="Rejected" value={count(counts?.rejected)} tone={(counts?.rejected ?? 0) > 0 ? "warn" : undefined} note="kept for audit" />
        <Stat label="Failed" value={count(counts?.failed)} tone={(counts?.failed ?? 0) > 0 ? "bad" : undefined} note={<a href={link("topics", "ingest.dlq")}>dead letters</a>} />
        <Stat label="Store lag" value={compact(status?.lag)} note="records still to process" />
        <Stat label="Store" value={status?.store.state ?? "–"} note={status?.store.error ?? (status?.store.shared === true ? "shared by all gateways" : "of this gateway")} tone={status?.store.error === undefined ? undefined : "bad"} />
      </div>
      <Submit done={() => (setSent(sent + 1), reload())} />
      <Panel
        title={
          <Tabs<Tab>
            label="What to look at"
            tabs={[["aggregates", "Aggregates"], ["processed", "Processed"], ["rejected", "Rejected"], ["failed", "Dead-lettered"]]}
            now={tab}
            go={setTab}
          />
        }
      >
        {tab === "aggregates" ? <Aggregates sent={sent} /> : <IngestEvents key={tab} status={tab} sent={sent} />}
      </Panel>
    </>
  );
}
