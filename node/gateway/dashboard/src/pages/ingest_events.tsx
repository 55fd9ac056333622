// Events of one status, newest first.

import { useState } from "react";
import { query, useLoad } from "../api";
import { link } from "../route";
import type { IngestEvent } from "../types";
import { Empty, Field, Trouble } from "../ui";

const LIMIT = 50;
const NOTHING = {
  processed: ["No processed events", "Submit one above."],
  rejected: ["Nothing was rejected", "An event without a client or a usable amount would be, with the reason."],
  failed: ["No dead letters", "An event that the store refuses time and again would be here; simulate a failure to see one."],
};

export function IngestEvents(props: { status: "processed" | "rejected" | "failed"; sent: number }) {
  const [filter, setFilter] = useState({ clientId: "", startDate: "", endDate: "" });
  const [skip, setSkip] = useState(0);
  const { data, problem } = useLoad<{ events: IngestEvent[] }>(`/api/events${query({ ...filter, status: props.status, limit: LIMIT, skip })}`, 3_000, props.sent);
  const set = (name: keyof typeof filter) => (event: { target: { value: string } }) => {
    setSkip(0);
    setFilter({ ...filter, [name]: event.target.value.trim() });
  };
  const events = data?.events ?? [];
  const [title, more] = NOTHING[props.status];
  return (
    <>
      <div className="controls">
        <Field label="Client"><input value={filter.clientId} onChange={set("clientId")} /></Field>
        <Field label="From"><input type="date" value={filter.startDate} onChange={set("startDate")} /></Field>
        <Field label="To, inclusive"><input type="date" value={filter.endDate} onChange={set("endDate")} /></Field>
        <span className="pager">
          <button type="button" disabled={skip === 0} onClick={() => setSkip(Math.max(0, skip - LIMIT))}>Newer</button>
          <button type="button" disabled={events.length < LIMIT} onClick={() => setSkip(skip + LIMIT)}>Older</button>
        </span>
      </div>
      {problem !== undefined && <Trouble problem={problem} retrying={problem.status !== 400} />}
      {data !== undefined && problem === undefined && events.length === 0 && <Empty title={title ?? ""}>{more}</Empty>}
      {events.length > 0 && (
        <div className="scroll tall">
          <table aria-label={`Events: ${props.status}`}>
            <thead>
              <tr>
                <th>{props.status === "rejected" ? "Received" : "Time"}</th><th>Client</th>
                {props.status !== "rejected" && <><th>Metric</th><th className="num">Amount</th></>}
                {props.status === "failed" && <th className="num extra">Attempts</th>}
                {props.status !== "processed" && <th>Why</th>}
                {props.status !== "processed" && <th className="extra">As it was sent</th>}
                <th className="extra">Record</th>
              </tr>
            </thead>
            <tbody>
              {events.map((event) => (
                <tr key={event.id}>
                  <td className="nowrap">{props.status === "rejected" ? event.receivedAt : event.timestamp}</td>
                  <td>{event.clientId ?? "–"}</td>
                  {props.status !== "rejected" && <><td>{event.metric ?? "–"}</td><td className="num">{event.amount === null ? "–" : JSON.stringify(event.amount)}</td></>}
                  {props.status === "failed" && <td className="num extra">{event.attempts}</td>}
                  {props.status !== "processed" && <td className="reason">{event.reason}</td>}
                  {props.status !== "processed" && <td className="mono extra clip" title={JSON.stringify(event.original)}>{JSON.stringify(event.original)}</td>}
                  <td className="extra nowrap"><a href={`${link("topics", event.topic)}?partition=${event.partition}`}>{event.topic}-{event.partition}</a> @{event.offset}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </>
  );
}
