// Sending events, and what became of each.

import { useState } from "react";
import { Problem, request } from "../api";
import type { IngestAnswer, IngestResult } from "../types";
import { Badge, Field, Panel, Trouble, type Tone } from "../ui";

const EXAMPLES: [string, string][] = [
  ["Nested, with the amount as text", '{"source":"client_A","payload":{"metric":"purchase","amount":"1200","timestamp":"2024/01/01"}}'],
  ["Flat, with other names", '{"client_id":"client_B","event_type":"click","value":500,"date":"2024-01-15T10:30:00Z"}'],
  [
    "Three at once, one of them unusable",
    '[{"origin":"client_C","name":"refund","price":"12.50","ts":1705314600},{"clientId":"client_C","count":"many"},{"client":"client_D","type":"view","quantity":3,"createdAt":1705314600123}]',
  ],
  ["For a failure: without a time", '{"source":"client_A","payload":{"metric":"purchase","amount":7}}'],
];

export const TONES: Record<string, Tone> = { processed: "good", accepted: "info", rejected: "warn", failed: "bad", error: "bad" };

function indented(text: string): string {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

function Result({ result }: { result: IngestResult }) {
  const event = result.event;
  return (
    <tr>
      <td className="num">{result.index}</td>
      <td>
        <Badge tone={TONES[result.status] ?? "plain"}>{result.status}</Badge> {result.isDuplicate === true && <Badge tone="info">duplicate</Badge>}
      </td>
      <td>{event?.clientId ?? "–"}</td>
      <td>{event?.metric ?? "–"}</td>
      <td className="num">{event?.amount === null || event === undefined ? "–" : JSON.stringify(event.amount)}</td>
      <td className="reason">{result.reason ?? event?.timestamp ?? ""}</td>
      <td className="mono extra" title={result.id}>{result.id.slice(0, 12)}</td>
    </tr>
  );
}

export function Submit({ done }: { done: () => void }) {
  const [text, setText] = useState(() => indented(EXAMPLES[0]?.[1] ?? ""));
  const [fail, setFail] = useState(false);
  const [busy, setBusy] = useState(false);
  const [answer, setAnswer] = useState<IngestAnswer | null>(null);
  const [problem, setProblem] = useState<Problem | null>(null);
  const submit = async () => {
    setBusy(true);
    setProblem(null);
    try {
      const init = { method: "POST", body: text, headers: { "content-type": "application/json" } };
      setAnswer(await request<IngestAnswer>(`/api/events${fail ? "?simulateFailure=true" : ""}`, init));
    } catch (error) {
      setAnswer(null);
      setProblem(error instanceof Problem ? error : new Problem(0, String(error)));
    }
    setBusy(false);
    done();
  };
  return (
    <Panel title="Submit events">
      <div className="submit">
        <form onSubmit={(event) => (event.preventDefault(), void submit())}>
          <Field label="Example" wide>
            <select aria-label="Example" value="" onChange={(event) => setText(indented(event.target.value))}>
              <option value="" disabled>Choose one to begin with</option>
              {EXAMPLES.map(([title, json]) => <option key={title} value={json}>{title}</option>)}
            </select>
          </Field>
          <Field label="One event, or an array of them, of any shape" wide>
            <textarea spellCheck={false} rows={11} value={text} onChange={(event) => setText(event.target.value)} />
          </Field>
          <div className="controls">
            <button type="submit" className="primary" disabled={busy}>{busy ? "Submitting" : "Submit"}</button>
            <label className="check">
              <input type="checkbox" checked={fail} onChange={(event) => setFail(event.target.checked)} /> Simulate a failure of the store
            </label>
          </div>
        </form>
        <div className="results" aria-live="polite">
          {problem !== null && <Trouble problem={problem} />}
          {problem === null && answer === null && <p className="muted note">What became of each event shows here. Send one twice: the second is recognised.</p>}
          {answer !== null && (
            <>
              <p className="note" data-testid="answer">
                <Badge tone={answer.success ? "good" : "warn"}>{answer.success ? "success" : "not all"}</Badge> {answer.processed} processed, {answer.failed} failed
                {answer.pending !== undefined && `, ${answer.pending} still to be processed`}
              </p>
              <div className="scroll">
                <table>
                  <thead>
                    <tr><th className="num">#</th><th>Result</th><th>Client</th><th>Metric</th><th className="num">Amount</th><th>Time, or why not</th><th className="extra">Id</th></tr>
                  </thead>
                  <tbody>{answer.results.slice(0, 200).map((result) => <Result key={result.index} result={result} />)}</tbody>
                </table>
              </div>
              <details>
                <summary>The whole answer</summary>
                <pre tabIndex={0}>{JSON.stringify(answer, null, 2).slice(0, 50_000)}</pre>
              </details>
            </>
          )}
        </div>
      </div>
    </Panel>
  );
}
