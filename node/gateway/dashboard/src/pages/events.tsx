// What happened in the cluster, newest first.

import { clock } from "../format";
import type { ClusterEvent } from "../types";
import { Badge, Empty, type Tone } from "../ui";

const NODE: Record<string, [Tone, string]> = {
  silent: ["bad", "does not answer this gateway"],
  answering: ["good", "answers again"],
  fenced: ["bad", "is fenced by the controller"],
  serving: ["good", "serves"],
  draining: ["warn", "is being drained"],
  joined: ["good", "joined"],
  removed: ["plain", "was removed"],
};

function node(id: number | null): string {
  return id === null ? "nobody" : `node ${id}`;
}

export function describe(event: ClusterEvent): [Tone, string, string] {
  switch (event.kind) {
    case "node": {
      const [tone, words] = NODE[event.state] ?? ["plain", event.state];
      return [tone, "node", `Node ${event.node} ${words}`];
    }
    case "controller":
      return ["info", "controller", `Controller: ${node(event.from)} → ${node(event.to)}`];
    case "election": {
      const to = event.to === null ? "no leader" : `led by ${node(event.to)}`;
      return [event.to === null ? "bad" : "info", "election", `${event.topic}-${event.partition} ${to} (was ${node(event.from)}), epoch ${event.epoch}`];
    }
    case "isr": {
      const left = event.left.length > 0 ? ` − ${event.left.join(", ")}` : "";
      const joined = event.joined.length > 0 ? ` + ${event.joined.join(", ")}` : "";
      return [event.left.length > 0 ? "warn" : "good", "ISR", `${event.topic}-${event.partition}${left}${joined}: in sync ${event.isr.join(", ")}`];
    }
    case "topic":
      return ["plain", "topic", `${event.topic} ${event.state}`];
    case "elections":
      return ["info", "election", `and ${event.more} more elections`];
    case "isrs":
      return ["warn", "ISR", `and ${event.more} more changes of in-sync replicas`];
    case "topics":
      return ["plain", "topic", `and ${event.more} more topics`];
  }
}

export function Events({ events }: { events: ClusterEvent[] }) {
  if (events.length === 0) {
    return <Empty title="Nothing so far">Elections, replicas that fall behind, and nodes that come and go show here as they happen.</Empty>;
  }
  return (
    <ol className="events" aria-live="polite" aria-relevant="additions">
      {events.map((event, index) => {
        const [tone, kind, words] = describe(event);
        return (
          <li key={`${event.t}-${events.length - index}`}>
            <time>{clock(event.t)}</time>
            <Badge tone={tone}>{kind}</Badge>
            <span>{words}</span>
          </li>
        );
      })}
    </ol>
  );
}
