// What the drivers in JavaScript share: the loop of requests (ops/compat/README.md has the protocol), the pace of a producer
// and the file of a member.
import { writeSync, openSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'

export const bootstrap = process.argv.at(-1).split(',')

export class NotAvailable extends Error {}

/** Sends `request.count` records in pieces, one piece behind the other, by `send(records)`. */
export async function produce(request, send) {
  const piece = request.rate ? Math.max(1, Math.floor(request.rate / 20)) : 1000
  const began = performance.now()
  let longest = 0
  for (let n = 0; n < request.count; n += piece) {
    if (request.rate) await sleep(Math.max(0, began + n / request.rate * 1000 - performance.now()))
    const numbers = Array.from({ length: Math.min(piece, request.count - n) }, (_, i) => n + i)
    const sent = performance.now()
    await send(numbers.map(number => ({ key: `k${number % 1000}`, value: `${request.tag}-${number}` })))
    longest = Math.max(longest, performance.now() - sent)
  }
  return { failed: 0, stall_ms: Math.round(longest) }
}

/**
 * Sends the records of each partition by themselves, at the same time. Both clients here treat a send to several leaders, of
 * which one dies, as if its partitions moved together: kafkajs resolves without the records of the dead leader when their
 * new one has answered for others already (https://github.com/tulios/kafkajs/issues/1303), @platformatic/kafka sends what
 * the dead one led on to the new leader of the first of its partitions. Who wants neither works around it like this.
 */
export function byPartition(partitions, send) {
  return messages => {
    const pieces = new Map()
    for (const message of messages) {
      const partition = Number(message.key.slice(1)) % partitions
      pieces.set(partition, [...(pieces.get(partition) ?? []), { ...message, partition }])
    }
    return Promise.all([...pieces.values()].map(send))
  }
}
export const ONE_BY_ONE = 'one partition a send'

/** What a member has read and not committed, and the file of it. */
export class Rows {
  constructor(request) {
    this.topic = request.topic
    this.limit = request.limit ?? Infinity
    this.file = openSync(request.file, 'w')
    this.read = 0
    this.next = new Map()
    this.failed = null
  }

  /** Whether the record was taken: beyond the limit none is. */
  row(partition, offset, key, value) {
    if (this.read >= this.limit) return false
    writeSync(this.file, `${partition} ${offset} ${key} ${value}\n`)
    this.next.set(partition, BigInt(offset) + 1n)
    this.read++
    return true
  }
}

export async function serve(handlers) {
  for await (const line of createInterface({ input: process.stdin })) {
    const request = JSON.parse(line)
    let answer
    try {
      if (!handlers[request.do]) throw new NotAvailable('none')
      answer = { ok: true, ...(await handlers[request.do](request)) }
    } catch (error) {
      if (!(error instanceof NotAvailable)) console.error(error)
      answer = error instanceof NotAvailable ? { na: error.message } : { error: String(error) }
    }
    console.log(JSON.stringify(answer))
  }
  process.exit(0)
}
