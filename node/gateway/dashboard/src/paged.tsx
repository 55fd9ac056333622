// A table of any length: only rows that can be seen exist, and only pages that were looked at are asked for.

import { useEffect, useRef, useState, type CSSProperties, type KeyboardEvent, type ReactNode } from "react";
import { Problem, request } from "./api";
import { Empty, Trouble } from "./ui";

const ROW = 32;
const PAGE = 100;
const SPARE = 6;

export interface Column<T> {
  title: string;
  cell: (row: T) => ReactNode;
  /// A grid track.
  width: string;
  number?: boolean;
  /// Left out on a phone.
  extra?: boolean;
}

export function PagedTable<T>(props: {
  label: string;
  /// The path of a page of so many rows, and where they are in its answer.
  path: (page: number, size: number) => string;
  rows: (answer: never) => T[];
  columns: Column<T>[];
  rowKey: (row: T) => string;
  open?: (row: T) => void;
  empty: ReactNode;
  everyMs: number;
  /// Changes when the rows may have changed.
  version?: unknown;
  maxRows?: number;
}) {
  const { path, everyMs, columns } = props;
  const scroller = useRef<HTMLDivElement>(null);
  const [top, setTop] = useState(0);
  const [pages, setPages] = useState<{ of: string; total: number | null; rows: Map<number, T[]> }>(() => ({
    of: path(0, PAGE),
    total: null,
    rows: new Map(),
  }));
  const [problem, setProblem] = useState<Problem | undefined>();
  const [focus, setFocus] = useState(0);
  const key = path(0, PAGE);
  const mine = pages.of === key;
  const total = mine ? pages.total : null;
  const shown = props.maxRows ?? 12;
  const first = Math.max(0, Math.floor(top / ROW) - SPARE);
  const last = Math.min(total ?? 0, Math.floor(top / ROW) + shown + SPARE);
  const firstPage = Math.floor(first / PAGE);
  const lastPage = Math.max(firstPage, Math.floor(Math.max(0, last - 1) / PAGE));
  const take = props.rows;

  useEffect(() => {
    const abort = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const load = async () => {
      try {
        for (let page = firstPage; page <= lastPage && !document.hidden; page += 1) {
          const answer = await request<{ total: number }>(path(page, PAGE), { signal: abort.signal });
          setPages((old) => {
            const rows = new Map(old.of === key ? old.rows : []);
            rows.set(page, take(answer as never));
            return { of: key, total: answer.total, rows };
          });
        }
        setProblem(undefined);
      } catch (error) {
        if (abort.signal.aborted) return;
        setProblem(error instanceof Problem ? error : new Problem(0, String(error)));
      }
      if (!abort.signal.aborted) timer = setTimeout(load, everyMs);
    };
    void load();
    return () => {
      clearTimeout(timer);
      abort.abort();
    };
    // `path` and `take` are made anew at every rendering; what they mean is in `key`.
  }, [key, firstPage, lastPage, everyMs, props.version]);

  const move = (event: KeyboardEvent) => {
    const steps: Record<string, number> = { ArrowDown: 1, ArrowUp: -1, PageDown: shown, PageUp: -shown };
    const row = at(focus);
    if (event.key === "Enter" && row !== undefined && props.open !== undefined) props.open(row);
    const step = event.key === "Home" ? -Infinity : event.key === "End" ? Infinity : steps[event.key];
    if (step === undefined || total === null) return;
    event.preventDefault();
    const next = Math.max(0, Math.min(total - 1, focus + step));
    setFocus(next);
    const box = scroller.current;
    if (box === null) return;
    if (next * ROW < box.scrollTop) box.scrollTop = next * ROW;
    if ((next + 1) * ROW > box.scrollTop + box.clientHeight) box.scrollTop = (next + 1) * ROW - box.clientHeight;
  };
  const at = (index: number): T | undefined => (mine ? pages.rows.get(Math.floor(index / PAGE))?.[index % PAGE] : undefined);
  const tracks = (some: Column<T>[]) => some.map((column) => column.width).join(" ");
  const grid = { "--columns": tracks(columns), "--narrow": tracks(columns.filter((column) => column.extra !== true)) } as CSSProperties;
  const cells = (content: (column: Column<T>) => ReactNode, role: string) =>
    columns.map((column) => (
      <span key={column.title} role={role} className={`${column.number === true ? "num" : ""} ${column.extra === true ? "extra" : ""}`}>
        {content(column)}
      </span>
    ));

  if (total === 0 && problem === undefined) return <>{props.empty}</>;
  return (
    <>
      {problem !== undefined && <Trouble problem={problem} retrying />}
      <div className="paged" style={grid} role="table" aria-label={props.label} aria-rowcount={total ?? -1}>
        <div className="paged-head" role="row">
          {cells((column) => column.title, "columnheader")}
        </div>
        <div
          className="paged-body"
          role="rowgroup"
          ref={scroller}
          tabIndex={0}
          aria-label={`${props.label}: arrow keys move${props.open === undefined ? "" : ", Enter opens"}`}
          style={{ maxHeight: shown * ROW }}
          onScroll={(event) => setTop(event.currentTarget.scrollTop)}
          onKeyDown={move}
        >
          <div style={{ height: (total ?? 0) * ROW, position: "relative" }}>
            {Array.from({ length: Math.max(0, last - first) }, (_, i) => first + i).map((index) => {
              const row = at(index);
              return (
                <div
                  key={row === undefined ? `blank-${index}` : props.rowKey(row)}
                  role="row"
                  aria-rowindex={index + 1}
                  className={`paged-row ${index === focus ? "focused" : ""} ${props.open === undefined ? "" : "opens"}`}
                  style={{ top: index * ROW }}
                  onClick={() => {
                    setFocus(index);
                    if (row !== undefined) props.open?.(row);
                  }}
                >
                  {row === undefined ? <span className="muted">…</span> : cells((column) => column.cell(row), "cell")}
                </div>
              );
            })}
          </div>
          {total === null && problem === undefined && <Empty title="Loading" />}
        </div>
      </div>
    </>
  );
}
