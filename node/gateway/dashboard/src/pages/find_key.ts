// Looks for records with a key, from the newest backwards. The log has no index of keys: what was searched is said.

import { readRecords } from "./records";
import type { StoredRecord } from "../types";

const STEP = 1000;
const ENOUGH = 50;
const MOST = 50_000;

export interface Found {
  searched: number;
  partitions: number;
  /// Nothing is left to search.
  complete: boolean;
  records: { partition: number; record: StoredRecord }[];
}

export async function findKey(topic: string, partitions: number, key: string, signal: AbortSignal, tell: (found: Found) => void): Promise<void> {
  const found: Found = { searched: 0, partitions, complete: false, records: [] };
  /// Where the part of each partition that was searched begins.
  const from = new Map<number, number>();
  const open = new Set(Array.from({ length: partitions }, (_, number) => number));
  while (open.size > 0 && found.searched < MOST && found.records.length < ENOUGH) {
    for (const partition of [...open]) {
      const before = from.get(partition);
      const place = before === undefined ? { by: "newest" as const } : { by: "offset" as const, offset: Math.max(0, before - STEP) };
      let page = await readRecords(topic, partition, place, STEP, signal);
      const first = before === undefined ? Math.max(page.logStartOffset, page.highWatermark - STEP) : Math.max(0, before - STEP);
      const until = before ?? page.highWatermark;
      // An answer holds about half a megabyte: the rest of the step comes in further ones.
      for (;;) {
        const mine = page.events.filter((record) => record.offset < until);
        found.searched += mine.length;
        for (const record of mine) if (record.key === key) found.records.push({ partition, record });
        if (page.nextOffset >= until || page.events.length === 0) break;
        page = await readRecords(topic, partition, { by: "offset", offset: page.nextOffset }, STEP, signal);
      }
      from.set(partition, first);
      if (first <= page.logStartOffset) open.delete(partition);
      found.records.sort((a, b) => b.record.timestamp - a.record.timestamp);
      found.complete = open.size === 0;
      tell({ ...found, records: found.records.slice(0, ENOUGH) });
      if (found.searched >= MOST) break;
    }
  }
}
