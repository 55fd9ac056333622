// The demonstration: a button, a slider, and what the groups do with the payments.

import { useEffect, useRef, useState } from "react";
import { Problem, request, useLoad } from "../api";
import { NONE, compact, count, millis, plural, rate as perSecond, since } from "../format";
import { link } from "../route";
import type { DemoStatus, DemoWork } from "../types";
import { Badge, Field, Panel, Trouble, type Tone } from "../ui";

const PATH = "/v1/demo";
const FIRST_RATE = 100_000;
/// The slider's steps: each is the same factor.
const STEPS = 100;
/// A slider that moves asks for its last place.
const SETTLED_MS = 300;

const STATES: Record<DemoStatus["state"], [string, Tone]> = {
  stopped: ["Stopped", "plain"],
  starting: ["Starting", "info"],
  running: ["Running", "good"],
  stopping: ["Stopping", "info"],
  elsewhere: ["Runs elsewhere", "info"],
};
const ENDED = {
  stopped: "it was stopped",
  timeIsUp: "its time was up",
  lostItsPlace: "the cluster did not hear of it for too long",
  broken: "a part of it failed",
};

const euros = new Intl.NumberFormat("en", { style: "currency", currency: "EUR", notation: "compact", maximumFractionDigits: 1 });
const money = (cents: number) => euros.format(cents / 100);

/// Two digits are enough for a rate that was pointed at.
function rateAt(step: number, low: number, high: number): number {
  const exact = low * (high / low) ** (step / STEPS);
  const unit = 10 ** (Math.floor(Math.log10(exact)) - 1);
  return Math.min(high, Math.max(low, Math.round(exact / unit) * unit));
}

function stepOf(rate: number, low: number, high: number): number {
  return Math.round((STEPS * Math.log(rate / low)) / Math.log(high / low));
}

function Work({ work }: { work: DemoWork }) {
  if (work.kind === "orders") {
    const most = work.most === null ? "" : `, ${work.most.name} the most: ${money(work.most.cents)}`;
    return <>{plural(work.accounts, "account")} paid {money(work.totalCents)}{most}</>;
  }
  if (work.kind === "notifications") {
    const last = work.latest[0];
    const told = last === undefined ? "" : `, the last ${money(last.cents)} by ${last.name}`;
    return <>{plural(work.sent, "payment")} of {money(work.aboveCents)} and more{told}</>;
  }
  const first = work.merchants[0];
  return (
    <>
      {first === undefined ? "nothing so far" : `${first.name} took ${money(first.cents)}, median ${money(first.p50Cents)}`}
      {work.replays > 0 && `; ${plural(work.replays, "replay")}, the same found in ${plural(work.partitionsVerified, "partition")}`}
      {work.partitionsMismatched > 0 && <b className="wrong"> something else in {count(work.partitionsMismatched)}</b>}
    </>
  );
}

function Elsewhere({ by }: { by: string }) {
  const isAddress = /^[\w.[\]:-]+:\d+$/.test(by);
  return (
    <p className="note">
      It runs at {isAddress ? <a href={`http://${by}/`}>{by}</a> : by}. A cluster has one at a time: stop it there, or wait until it ends.
    </p>
  );
}

function Figures({ here, active }: { here: NonNullable<DemoStatus["here"]>; active: boolean }) {
  const { written } = here;
  const [p50, p95, p99] = written.latencyMs ?? [];
  const wrong = [
    [written.behind, "behind"],
    [written.shed, "never sent: too far behind"],
    [written.failed, "failed"],
    [written.unknown, "of unknown outcome"],
  ].filter(([number]) => Number(number) > 0);
  return (
    <p className="note demo-figures">
      {active && (
        <>
          <span><b data-testid="demo-achieved">{count(written.achievedPerMinute)}</b> a minute of {count(here.ratePerMinute)}</span>
          <span>acknowledged after <b data-testid="demo-p99">{millis(p99)}</b> (p99), {millis(p95)} (p95), {millis(p50)} (p50)</span>
        </>
      )}
      <span><b data-testid="demo-acknowledged">{count(written.acknowledged)}</b> payments acknowledged</span>
      {wrong.map(([number, what]) => <span key={what} className="wrong">{count(Number(number))} {what}</span>)}
    </p>
  );
}

export function Demo() {
  const [every, setEvery] = useState(3_000);
  const { data, problem, reload } = useLoad<DemoStatus>(PATH, every);
  const [chosen, setChosen] = useState<number | null>(null);
  const [typed, setTyped] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);
  const [refused, setRefused] = useState<Problem | null>(null);
  const settling = useRef<ReturnType<typeof setTimeout>>(undefined);
  const state = data?.state ?? "stopped";
  const active = state === "running" || state === "stopping" || state === "starting";
  useEffect(() => setEvery(active ? 1_000 : 3_000), [active]);
  useEffect(() => () => clearTimeout(settling.current), []);

  const low = data?.minRatePerMinute ?? 10_000;
  const high = data?.maxRatePerMinute ?? 1_000_000;
  const rate = chosen ?? data?.here?.ratePerMinute ?? FIRST_RATE;
  const ask = async (method: "PUT" | "DELETE", body?: object) => {
    setBusy(true);
    setRefused(null);
    try {
      await request<DemoStatus>(PATH, {
        method,
        ...(body === undefined ? {} : { body: JSON.stringify(body), headers: { "content-type": "application/json" } }),
      });
    } catch (error) {
      setRefused(error instanceof Problem ? error : new Problem(0, String(error)));
    }
    setBusy(false);
    reload();
  };
  const choose = (next: number) => {
    setChosen(next);
    clearTimeout(settling.current);
    if (state === "running") settling.current = setTimeout(() => void ask("PUT", { ratePerMinute: next }), SETTLED_MS);
  };
  const type = (text: string) => {
    setTyped(text);
    const next = Number(text);
    if (Number.isInteger(next) && next >= low && next <= high) choose(next);
  };
  if (data === undefined) return problem === undefined ? null : <Panel title="Demonstration"><Trouble problem={problem} retrying /></Panel>;

  const [name, tone] = STATES[state];
  const here = data.here;
  const left = active && here?.endsAt !== undefined ? ` ends in ${since(Date.now(), here.endsAt)}` : "";
  const may = data.allowed && state !== "elsewhere";
  return (
    <Panel title="Demonstration" aside={<><Badge tone={tone}>{name}</Badge><span className="muted">{left}</span></>}>
      {!data.allowed && (
        <p className="note">
          A stream of payments and three groups that read it. This gateway is not in development mode: start it with <code>--ingest-development true</code>, or run <code>strandline demo</code>.
        </p>
      )}
      {state === "elsewhere" && data.elsewhere !== undefined && <Elsewhere by={data.elsewhere.by} />}
      {may && (
        <form className="controls demo-controls" onSubmit={(event) => (event.preventDefault(), void (active ? ask("DELETE") : ask("PUT", { ratePerMinute: rate })))}>
          <button type="submit" className={active ? "" : "primary"} disabled={busy || state === "starting" || state === "stopping"}>
            {active ? "Stop the demonstration" : "Start the demonstration"}
          </button>
          <Field label="Payments a minute">
            <input
              type="range"
              aria-label="Payments a minute, slider"
              aria-valuetext={`${count(rate)} a minute`}
              min={0}
              max={STEPS}
              value={stepOf(rate, low, high)}
              onChange={(event) => (setTyped(null), choose(rateAt(Number(event.target.value), low, high)))}
            />
          </Field>
          <Field label={`${compact(low)} to ${compact(high)}`}>
            <input
              type="number"
              aria-label="Payments a minute"
              min={low}
              max={high}
              step={1}
              value={typed ?? rate}
              onChange={(event) => type(event.target.value)}
              onBlur={() => setTyped(null)}
            />
          </Field>
        </form>
      )}
      {refused !== null && <Trouble problem={refused} />}
      {!active && here === undefined && data.allowed && state === "stopped" && (
        <p className="note muted">Writes payments at this rate, and reads them in three groups: one with members that come and go, one that falls behind and catches up, one that goes back and reads again. It stops by itself after 15 minutes.</p>
      )}
      {here !== undefined && state !== "elsewhere" && (
        <>
          {!active && here.ended !== undefined && <p className="note muted">The last one has ended: {ENDED[here.ended]}.</p>}
          <Figures here={here} active={active} />
          {here.written.lastError !== undefined && <p className="note muted">Last error: {here.written.lastError}</p>}
          <div className="scroll">
            <table aria-label="Groups of the demonstration">
              <thead>
                <tr><th>Group</th><th className="num">Members</th><th className="num">Lag</th><th className="num extra">Reads</th><th className="num">Rebalances</th><th className="num extra">Read again</th></tr>
              </thead>
              <tbody>
                {here.groups.map((group) => (
                  <tr key={group.group} data-group={group.group}>
                    <td>
                      <a href={link("groups", group.group)}>{group.group}</a>
                      {active && <span> {group.phase}</span>}
                      <div className="muted"><Work work={group.work} /></div>
                    </td>
                    <td className="num">{count(group.members)}</td>
                    <td className="num">{compact(group.lag)}</td>
                    <td className="num extra">{active ? perSecond(group.perSecond) : NONE}</td>
                    <td className="num">{count(group.rebalances)}</td>
                    <td className="num extra">{compact(group.repeated)}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
        </>
      )}
    </Panel>
  );
}
