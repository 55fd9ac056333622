// The records of a partition: from an offset, from a time, the newest, or those with a key.

import { useCallback, useEffect, useRef, useState } from "react";
import { Problem, query, request } from "../api";
import { count, moment } from "../format";
import { findKey, type Found } from "./find_key";
import { go, link } from "../route";
import type { RecordPage, StoredRecord } from "../types";
import { Badge, Empty, Field, Panel, Trouble } from "../ui";

const SHOWN = 50;

export type Place = { by: "newest" } | { by: "offset"; offset: number } | { by: "time"; ms: number };

export async function readRecords(topic: string, partition: number, place: Place, max: number, signal: AbortSignal): Promise<RecordPage> {
  const path = `/v1/topics/${encodeURIComponent(topic)}/records`;
  const read = (from: { offset?: number; timestamp?: number }, most: number) =>
    request<RecordPage>(path + query({ partition, max: most, ...from }), { signal });
  if (place.by === "time") return read({ timestamp: place.ms }, max);
  if (place.by === "offset") return read({ offset: place.offset }, max);
  // Where the end is, is known only after an answer.
  const first = await read({}, 1);
  return read({ offset: Math.max(first.logStartOffset, first.highWatermark - max) }, max);
}

function preview(record: StoredRecord): string {
  if (record.value === null) return "no value (tombstone)";
  return typeof record.value === "string" ? record.value : JSON.stringify(record.value);
}

function pretty(record: StoredRecord): string {
  if (typeof record.value !== "string") return JSON.stringify(record.value, null, 2);
  try {
    // Text that is itself JSON.
    return record.valueEncoding === "text" ? JSON.stringify(JSON.parse(record.value), null, 2) : JSON.stringify(record.value);
  } catch {
    return record.value;
  }
}

function Row({ record, partition }: { record: StoredRecord; partition?: number }) {
  const [open, setOpen] = useState(false);
  const headers = Object.entries(record.headers);
  return (
    <li className={open ? "open" : ""}>
      <button type="button" className="record" aria-expanded={open} onClick={() => setOpen(!open)}>
        <span className="num offset">{partition === undefined ? record.offset : `${partition}:${record.offset}`}</span>
        <time className="extra">{moment(record.timestamp)}</time>
        <span className="key">{record.key ?? <i>no key</i>}</span>
        <span className="value">{preview(record).slice(0, 300)}</span>
      </button>
      {open && (
        <div className="record-more">
          <p className="muted">{moment(record.timestamp)}{record.valueEncoding !== undefined && ` · stored as ${record.valueEncoding}`}</p>
          <pre tabIndex={0}>{record.value === null ? "no value" : pretty(record)}</pre>
          {headers.length > 0 && (
            <dl>
              {headers.map(([name, value]) => (
                <div key={name}><dt>{name}</dt><dd>{typeof value === "string" ? value : JSON.stringify(value)}</dd></div>
              ))}
            </dl>
          )}
        </div>
      )}
    </li>
  );
}

function local(ms: number): string {
  const date = new Date(ms - new Date(ms).getTimezoneOffset() * 60_000);
  return date.toISOString().slice(0, 19);
}

type By = "newest" | "offset" | "time" | "key";

export function Records(props: { topic: string; partitions: number | undefined; partition: number }) {
  const { topic, partition } = props;
  const [by, setBy] = useState<By>("newest");
  const [offset, setOffset] = useState("0");
  const [time, setTime] = useState(() => local(Date.now() - 3_600_000));
  const [key, setKey] = useState("");
  const [page, setPage] = useState<RecordPage | null>(null);
  const [found, setFound] = useState<Found | null>(null);
  const [problem, setProblem] = useState<Problem | undefined>();
  const [busy, setBusy] = useState(false);
  const running = useRef<AbortController | null>(null);

  const run = useCallback(async (work: (signal: AbortSignal) => Promise<void>) => {
    running.current?.abort();
    const mine = new AbortController();
    running.current = mine;
    setBusy(true);
    setProblem(undefined);
    try {
      await work(mine.signal);
    } catch (error) {
      if (!mine.signal.aborted) setProblem(error instanceof Problem ? error : new Problem(0, String(error)));
    } finally {
      if (running.current === mine) setBusy(false);
    }
  }, []);
  const show = useCallback(
    (place: Place) =>
      run(async (signal) => {
        const page = await readRecords(topic, partition, place, SHOWN, signal);
        setFound(null);
        setPage(page);
      }),
    [run, topic, partition],
  );
  useEffect(() => {
    void show({ by: "newest" });
    return () => running.current?.abort();
  }, [show]);

  const submit = () => {
    if (by === "newest") void show({ by });
    else if (by === "offset") void show({ by, offset: Math.max(0, Math.trunc(Number(offset) || 0)) });
    else if (by === "time") void show({ by, ms: Math.max(0, new Date(time).getTime() || 0) });
    else if (props.partitions !== undefined) {
      const partitions = props.partitions;
      void run((signal) => findKey(topic, partitions, key, signal, (found) => (setPage(null), setFound(found))));
    }
  };
  const records = page?.events ?? [];
  const start = records[0]?.offset ?? page?.nextOffset ?? 0;
  return (
    <Panel
      title="Records"
      aside={page !== null && <span className="muted">partition {page.partition}: offsets {count(page.logStartOffset)} to {count(page.highWatermark)} (exclusive)</span>}
    >
      <form className="controls" onSubmit={(event) => (event.preventDefault(), submit())}>
        <Field label="Partition">
          <select value={partition} disabled={by === "key"} onChange={(event) => go(`${link("topics", topic)}?partition=${event.target.value}`)}>
            {Array.from({ length: Math.max(props.partitions ?? 0, partition + 1) }, (_, number) => (
              <option key={number} value={number}>{number}</option>
            ))}
          </select>
        </Field>
        <Field label="Find by">
          <select value={by} onChange={(event) => setBy(event.target.value as By)}>
            <option value="newest">Newest</option>
            <option value="offset">Offset</option>
            <option value="time">Time</option>
            <option value="key">Key</option>
          </select>
        </Field>
        {by === "offset" && <Field label="From offset"><input type="number" min={0} value={offset} onChange={(event) => setOffset(event.target.value)} /></Field>}
        {by === "time" && <Field label="From (local time)"><input type="datetime-local" step={1} value={time} onChange={(event) => setTime(event.target.value)} /></Field>}
        {by === "key" && <Field label="Key, exactly"><input value={key} required onChange={(event) => setKey(event.target.value)} /></Field>}
        <button type="submit" className="primary">{by === "key" ? "Search" : "Show"}</button>
        {busy && by === "key" && <button type="button" onClick={() => running.current?.abort()}>Stop</button>}
        {page !== null && (
          <span className="pager">
            <button type="button" disabled={busy || start <= page.logStartOffset} onClick={() => show({ by: "offset", offset: Math.max(page.logStartOffset, start - SHOWN) })}>Older</button>
            <button type="button" disabled={busy || page.nextOffset >= page.highWatermark} onClick={() => show({ by: "offset", offset: page.nextOffset })}>Newer</button>
          </span>
        )}
      </form>
      {problem !== undefined && <Trouble problem={problem} />}
      {found !== null && (
        <p className="muted note">
          {busy ? "Searching" : "Searched"} the newest {count(found.searched)} records of {count(found.partitions)} partitions{found.complete ? ": all there are" : ""}. <Badge tone="plain">{found.records.length} found</Badge>
        </p>
      )}
      {page !== null && records.length === 0 && (
        <Empty title={page.highWatermark === page.logStartOffset ? "This partition is empty" : "No records from there on"} />
      )}
      {found !== null && !busy && found.records.length === 0 && <Empty title="No record with that key among those" />}
      <ol className="records" aria-label="Records">
        {page !== null && records.map((record) => <Row key={record.offset} record={record} />)}
        {found?.records.map(({ partition, record }) => <Row key={`${partition}-${record.offset}`} record={record} partition={partition} />)}
      </ol>
    </Panel>
  );
}
