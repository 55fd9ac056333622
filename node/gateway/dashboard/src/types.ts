// Documents of the gateway, as node/gateway/src/live/documents.rs, node/gateway/src/demo/report.rs and /openapi.json have them.

export interface ClusterNode {
  id: number;
  grpc: string;
  http: string;
  kafka: string;
  rack: string;
  state: "serving" | "fenced" | "draining";
  answers: boolean;
  silentSince?: number;
  error?: string;
  leads: number;
  replicas: number;
}

export interface Cluster {
  clusterId: string;
  version: number;
  controller: number | null;
  nodes: ClusterNode[];
  topics: number;
  partitions: number;
  underReplicated: number;
  leaderless: number;
  reachable: boolean;
}

export type ClusterEvent = { t: number } & (
  | { kind: "node"; node: number; state: string }
  | { kind: "controller"; from: number | null; to: number | null }
  | { kind: "election"; topic: string; partition: number; from: number | null; to: number | null; epoch: number }
  | { kind: "isr"; topic: string; partition: number; isr: number[]; left: number[]; joined: number[] }
  | { kind: "topic"; topic: string; state: string }
  | { kind: "elections" | "isrs" | "topics"; more: number }
);

export interface Point {
  t: number;
  in: number;
  out: number;
  requests: number;
  errors: number;
  refused: number;
  httpIn: number;
  httpOut: number;
  produce?: [number, number, number];
  ingest?: [number, number, number];
  depth: number;
  lag: number;
}

export interface Queue {
  topic: string;
  partition: number;
  depth: number;
  slowest: string;
}

export interface GroupSummary {
  group: string;
  state: string;
  lag: number;
  partitions: number;
  rate: number;
}

export interface Tick extends Point {
  deepest: Queue[];
  groups: GroupSummary[];
  groupCount: number;
  groupsLeftOut?: boolean;
}

export interface TopicSummary {
  name: string;
  partitions: number;
  replicationFactor: number;
  underReplicated: number;
  leaderless: number;
  end: number;
  rate: number;
  depth: number | null;
}

export interface PartitionRow {
  topic: string;
  partition: number;
  leader: number | null;
  leaderEpoch: number;
  replicas: number[];
  isr: number[];
  highWatermark: number | null;
  depth: number | null;
  slowest: string | null;
}

export interface StoredRecord {
  offset: number;
  timestamp: number;
  key: string | null;
  value: unknown;
  headers: Record<string, string>;
  keyEncoding?: string;
  valueEncoding?: string;
}

export interface RecordPage {
  topic: string;
  partition: number;
  events: StoredRecord[];
  nextOffset: number;
  highWatermark: number;
  logStartOffset: number;
}

export interface Group {
  group: string;
  state: string;
  generation: number;
  protocol: string;
  coordinator: number;
  members: {
    memberId: string;
    instanceId: string | null;
    clientId: string;
    clientHost: string;
    partitions: { topic: string; partition: number }[];
  }[];
}

export interface GroupLag {
  group: string;
  lag: number;
  partitions: {
    topic: string;
    partition: number;
    committed: number;
    highWatermark: number | null;
    lag: number | null;
    committedAt: number | null;
  }[];
}

export interface IngestEvent {
  id: string;
  status: "processed" | "rejected" | "failed";
  clientId: string | null;
  metric: string | null;
  amount: number | null;
  timestamp: string;
  receivedAt: string;
  reason?: string;
  attempts?: number;
  original?: unknown;
  topic: string;
  partition: number;
  offset: number;
}

export interface IngestResult {
  index: number;
  id: string;
  status: string;
  isDuplicate: boolean | null;
  reason?: string;
  event?: IngestEvent;
}

export interface IngestAnswer {
  success: boolean;
  processed: number;
  failed: number;
  pending?: number;
  results: IngestResult[];
}

export interface Aggregation {
  clientId?: string;
  metric?: string;
  count: number;
  sum: number;
  mean: number | null;
  min: number | null;
  max: number | null;
}

export interface IngestStatus {
  status: string;
  store: { state: string; shared: boolean; error?: string };
  counts: { processed: number; rejected: number; failed: number; duplicates: number };
  lag: number;
}

export interface DemoGroup {
  group: string;
  phase: string;
  members: number;
  lag: number | null;
  perSecond: number;
  read: number;
  repeated: number;
  rebalances: number;
  errors: number;
  lastError?: string;
  work: DemoWork;
}

export type DemoWork =
  | { kind: "orders"; accounts: number; totalCents: number; most: { name: string; cents: number } | null }
  | { kind: "notifications"; aboveCents: number; sent: number; latest: { name: string; cents: number }[] }
  | {
      kind: "analytics";
      merchants: { name: string; count: number; cents: number; p50Cents: number; p99Cents: number }[];
      replays: number;
      partitionsVerified: number;
      partitionsMismatched: number;
    };

export interface DemoStatus {
  state: "stopped" | "starting" | "running" | "stopping" | "elsewhere";
  allowed: boolean;
  minRatePerMinute: number;
  maxRatePerMinute: number;
  elsewhere?: { by: string; ratePerMinute: number; startedAt: number; endsAt: number | null };
  here?: {
    ended?: "stopped" | "timeIsUp" | "lostItsPlace" | "broken";
    startedAt: number;
    endsAt?: number;
    ratePerMinute: number;
    written: {
      achievedPerMinute: number;
      acknowledged: number;
      failed: number;
      unknown: number;
      behind: number;
      shed: number;
      latencyMs?: [number, number, number];
      lastError?: string;
    };
    groups: DemoGroup[];
  };
}
