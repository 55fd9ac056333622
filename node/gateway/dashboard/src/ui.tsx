// Small parts that every page uses.

import type { KeyboardEvent, ReactNode } from "react";
import type { Problem } from "./api";

export function Panel(props: { title?: ReactNode; aside?: ReactNode; children: ReactNode; className?: string }) {
  return (
    <section className={`panel ${props.className ?? ""}`}>
      {props.title !== undefined && (
        <header className="panel-head">
          <h2>{props.title}</h2>
          {props.aside !== undefined && <div className="aside">{props.aside}</div>}
        </header>
      )}
      {props.children}
    </section>
  );
}

export function Stat(props: { label: string; value: ReactNode; note?: ReactNode; tone?: "bad" | "warn" | undefined }) {
  return (
    <div className={`stat ${props.tone ?? ""}`}>
      <div className="stat-label">{props.label}</div>
      <div className="stat-value">{props.value}</div>
      {props.note !== undefined && <div className="stat-note">{props.note}</div>}
    </div>
  );
}

export type Tone = "good" | "warn" | "bad" | "info" | "plain";

export function Badge(props: { tone: Tone; children: ReactNode; title?: string }) {
  return (
    <span className={`badge ${props.tone}`} title={props.title}>
      {props.children}
    </span>
  );
}

export function Empty(props: { title: string; children?: ReactNode }) {
  return (
    <div className="empty">
      <p className="empty-title">{props.title}</p>
      {props.children !== undefined && <div className="empty-more">{props.children}</div>}
    </div>
  );
}

export function Trouble(props: { problem: Problem; retrying?: boolean }) {
  return (
    <div className="trouble" role="alert">
      <strong>{props.problem.message}</strong>
      {props.problem.hint !== undefined && <span> {props.problem.hint}</span>}
      {props.retrying === true && <span className="muted"> Trying again.</span>}
    </div>
  );
}

export function Field(props: { label: string; children: ReactNode; wide?: boolean }) {
  return (
    <label className={`field ${props.wide === true ? "wide" : ""}`}>
      <span>{props.label}</span>
      {props.children}
    </label>
  );
}

export function Tabs<T extends string>(props: { label: string; tabs: [T, string][]; now: T; go: (tab: T) => void }) {
  const keys = (event: KeyboardEvent) => {
    const step = event.key === "ArrowRight" ? 1 : event.key === "ArrowLeft" ? -1 : 0;
    if (step === 0) return;
    event.preventDefault();
    const at = props.tabs.findIndex(([tab]) => tab === props.now);
    const next = props.tabs[(at + step + props.tabs.length) % props.tabs.length];
    if (next === undefined) return;
    props.go(next[0]);
    const tabs = event.currentTarget.querySelectorAll<HTMLElement>("[role=tab]");
    tabs[props.tabs.indexOf(next)]?.focus();
  };
  return (
    <div className="tabs" role="tablist" aria-label={props.label} onKeyDown={keys}>
      {props.tabs.map(([tab, title]) => (
        <button
          key={tab}
          role="tab"
          type="button"
          aria-selected={tab === props.now}
          tabIndex={tab === props.now ? 0 : -1}
          onClick={() => props.go(tab)}
        >
          {title}
        </button>
      ))}
    </div>
  );
}

export function Meter(props: { part: number; whole: number }) {
  const share = props.whole <= 0 ? 0 : Math.min(1, props.part / props.whole);
  return (
    <span className="meter" aria-hidden="true">
      <span style={{ width: `${Math.round(share * 100)}%` }} />
    </span>
  );
}

export function groupTone(state: string): Tone {
  if (state === "Stable") return "good";
  if (state === "View") return "info";
  if (state === "Empty" || state === "Dead") return "plain";
  return "warn";
}
