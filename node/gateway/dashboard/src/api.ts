// Requests to the gateway that serves this page.

import { useCallback, useEffect, useRef, useState } from "react";

/// What went wrong, and what to do about it: a problem document (RFC 9457), or no answer.
export class Problem extends Error {
  constructor(
    readonly status: number,
    message: string,
    readonly hint?: string,
    readonly document?: unknown,
  ) {
    super(message);
  }
}

// Numbers with more digits than a double holds stay as they were written, where the browser can do that.
const raw = (JSON as unknown as { rawJSON?: (text: string) => unknown }).rawJSON;

function exactly(this: unknown, _key: string, value: unknown, context?: { source?: string }): unknown {
  const source = context?.source;
  if (typeof value !== "number" || raw === undefined || source === undefined) return value;
  return source.replace(/[^0-9]/g, "").length > 15 ? raw(source) : value;
}

const PATIENCE_MS = 20_000;

export async function request<T>(path: string, init: RequestInit = {}): Promise<T> {
  const timeout = AbortSignal.timeout(PATIENCE_MS);
  const signal = init.signal ? AbortSignal.any([init.signal, timeout]) : timeout;
  let response: Response;
  try {
    response = await fetch(path, { ...init, signal });
  } catch (error) {
    if (init.signal?.aborted) throw error;
    const late = timeout.aborted ? `no answer within ${PATIENCE_MS / 1000} s` : "the gateway does not answer";
    throw new Problem(0, late, "is the node that serves this page running? Another node's port serves the same page");
  }
  const text = await response.text();
  let document: unknown = null;
  try {
    document = text === "" ? null : JSON.parse(text, exactly);
  } catch {
    throw new Problem(response.status, `the answer of ${path} is no JSON`);
  }
  if (!response.ok) {
    const problem = (document ?? {}) as { detail?: string; title?: string; hint?: string };
    throw new Problem(response.status, problem.detail ?? problem.title ?? response.statusText, problem.hint, document);
  }
  return document as T;
}

export function query(parameters: Record<string, string | number | undefined | null>): string {
  const given = Object.entries(parameters).filter(([, value]) => value !== undefined && value !== null && value !== "");
  const text = new URLSearchParams(given.map(([name, value]) => [name, String(value)])).toString();
  return text === "" ? "" : `?${text}`;
}

export interface Loaded<T> {
  data: T | undefined;
  problem: Problem | undefined;
  reload: () => void;
}

/// Loads `path` (null: nothing), and again every `everyMs` while the page is visible. Old data stays until new is there.
export function useLoad<T>(path: string | null, everyMs?: number, also: unknown = null): Loaded<T> {
  const [state, setState] = useState<{ path: string | null; data?: T; problem?: Problem }>({ path });
  const [asked, setAsked] = useState(0);
  const running = useRef<AbortController | null>(null);
  useEffect(() => {
    if (path === null) return;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const load = async () => {
      running.current?.abort();
      const mine = new AbortController();
      running.current = mine;
      try {
        if (!document.hidden) {
          const data = await request<T>(path, { signal: mine.signal });
          setState({ path, data });
        }
      } catch (error) {
        if (mine.signal.aborted) return;
        const problem = error instanceof Problem ? error : new Problem(0, String(error));
        setState((old) => (old.path === path ? { ...old, problem } : { path, problem }));
      }
      if (everyMs !== undefined && !mine.signal.aborted) timer = setTimeout(load, everyMs);
    };
    void load();
    return () => {
      clearTimeout(timer);
      running.current?.abort();
    };
  }, [path, everyMs, asked, also]);
  const reload = useCallback(() => setAsked((count) => count + 1), []);
  const mine = state.path === path;
  return { data: mine ? state.data : undefined, problem: mine ? state.problem : undefined, reload };
}
