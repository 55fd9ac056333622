// The live stream of this gateway: one for the page, kept in a store that components subscribe to.

import { useSyncExternalStore } from "react";
import type { Cluster, ClusterEvent, Point, Tick } from "./types";

const POINTS = 300;
const EVENTS = 100;
// A stream that is silent for so long is dead, whatever the socket says: a tick comes every second.
const SILENCE_MS = 5_000;
const AGAIN_MS = 1_500;

export interface Live {
  status: "connecting" | "live" | "lost";
  cluster: Cluster | null;
  tick: Tick | null;
  /// Oldest first.
  history: Point[];
  /// Newest first.
  events: ClusterEvent[];
}

let live: Live = { status: "connecting", cluster: null, tick: null, history: [], events: [] };
const listeners = new Set<() => void>();

function set(change: Partial<Live>) {
  live = { ...live, ...change };
  listeners.forEach((listener) => listener());
}

/// Newest first; of one moment in their order, which has the cause before its consequences.
function newest(events: ClusterEvent[], before: ClusterEvent[]): ClusterEvent[] {
  return [...events.toSorted((a, b) => b.t - a.t), ...before].slice(0, EVENTS);
}

let watchdog: ReturnType<typeof setTimeout> | undefined;

export function connect() {
  const source = new EventSource("/v1/live");
  const alive = () => {
    clearTimeout(watchdog);
    watchdog = setTimeout(again, SILENCE_MS);
    if (live.status !== "live") set({ status: "live" });
  };
  const again = () => {
    clearTimeout(watchdog);
    source.close();
    set({ status: "lost" });
    setTimeout(connect, AGAIN_MS);
  };
  const on = <T>(kind: string, take: (message: T) => void) =>
    source.addEventListener(kind, (event) => {
      take(JSON.parse((event as MessageEvent<string>).data) as T);
      alive();
    });
  on<{ cluster: Cluster; events: ClusterEvent[]; tick?: Tick; history: Point[] }>("snapshot", (message) =>
    set({
      cluster: message.cluster,
      events: newest(message.events, []),
      tick: message.tick ?? null,
      history: message.history,
    }),
  );
  on<Tick>("tick", (tick) => set({ tick, history: [...live.history, tick].slice(-POINTS) }));
  on<{ cluster: Cluster; events: ClusterEvent[] }>("cluster", (message) =>
    set({ cluster: message.cluster, events: newest(message.events, live.events) }),
  );
  source.addEventListener("open", alive);
  source.addEventListener("error", () => {
    // The browser tries again by itself, and says what it had last; unless it was refused.
    if (source.readyState === EventSource.CLOSED) again();
    else if (live.status === "live") set({ status: "lost" });
  });
}

export function useLive(): Live {
  return useSyncExternalStore(
    (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    () => live,
  );
}
