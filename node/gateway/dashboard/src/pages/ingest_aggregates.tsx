// Sums over processed events.

import { useState } from "react";
import { query, useLoad } from "../api";
import { count, plural } from "../format";
import type { Aggregation } from "../types";
import { Empty, Field, Trouble } from "../ui";

const SHOWN = 500;

/// Exact decimals: as they were written, not as a double has them.
function decimal(value: number | null): string {
  return value === null ? "–" : JSON.stringify(value);
}

export function Aggregates({ sent }: { sent: number }) {
  const [filter, setFilter] = useState({ clientId: "", metric: "", startDate: "", endDate: "", groupBy: "both" });
  const { data, problem } = useLoad<{ aggregations: Aggregation[] }>(`/api/aggregations${query(filter)}`, 3_000, sent);
  const set = (name: keyof typeof filter) => (event: { target: { value: string } }) => setFilter({ ...filter, [name]: event.target.value.trim() });
  const by = filter.groupBy;
  const groups = (data?.aggregations ?? []).filter((group) => by !== "none" || group.count > 0);
  return (
    <>
      <div className="controls">
        <Field label="Group by">
          <select value={by} onChange={set("groupBy")}>
            <option value="both">Client and metric</option>
            <option value="clientId">Client</option>
            <option value="metric">Metric</option>
            <option value="none">Nothing</option>
          </select>
        </Field>
        <Field label="Client"><input value={filter.clientId} onChange={set("clientId")} /></Field>
        <Field label="Metric"><input value={filter.metric} onChange={set("metric")} /></Field>
        <Field label="From"><input type="date" value={filter.startDate} onChange={set("startDate")} /></Field>
        <Field label="To, inclusive"><input type="date" value={filter.endDate} onChange={set("endDate")} /></Field>
      </div>
      {problem !== undefined && <Trouble problem={problem} retrying={problem.status !== 400} />}
      {data !== undefined && problem === undefined && groups.length === 0 && <Empty title="No processed events">None were sent, or none pass these filters.</Empty>}
      {groups.length > 0 && (
        <div className="scroll tall">
          <table aria-label="Aggregates">
            <thead>
              <tr>
                {(by === "both" || by === "clientId") && <th>Client</th>}
                {(by === "both" || by === "metric") && <th>Metric</th>}
                <th className="num">Count</th><th className="num">Sum</th><th className="num">Mean</th><th className="num extra">Min</th><th className="num extra">Max</th>
              </tr>
            </thead>
            <tbody>
              {groups.slice(0, SHOWN).map((group) => (
                <tr key={`${group.clientId ?? ""}\n${group.metric ?? ""}`}>
                  {(by === "both" || by === "clientId") && <td>{group.clientId}</td>}
                  {(by === "both" || by === "metric") && <td>{group.metric}</td>}
                  <td className="num">{count(group.count)}</td>
                  <td className="num">{decimal(group.sum)}</td>
                  <td className="num">{decimal(group.mean)}</td>
                  <td className="num extra">{decimal(group.min)}</td>
                  <td className="num extra">{decimal(group.max)}</td>
                </tr>
              ))}
            </tbody>
          </table>
          {groups.length > SHOWN && <p className="muted note">The first {SHOWN} of {plural(groups.length, "group")}: narrow it down.</p>}
        </div>
      )}
    </>
  );
}
