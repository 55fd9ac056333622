// Driver of @platformatic/kafka.
import { createRequire } from 'node:module'
import { dirname, join as path } from 'node:path'
import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { Admin, Consumer, ConfigResourceTypes, IncrementalAlterConfigOperationTypes, Producer, stringDeserializers,
  stringSerializers } from '@platformatic/kafka'
import { ONE_BY_ONE, Rows, bootstrap, byPartition, produce, serve } from './driver.mjs'

const base = { clientId: 'compat', bootstrapBrokers: bootstrap, retries: 20, retryDelay: 250 }
let consumer, stream, rows, committing, ending = false

async function withAdmin(work) {
  const admin = new Admin(base)
  try {
    return await work(admin)
  } finally {
    await admin.close()
  }
}

const owned = () => (consumer.assignments ?? []).filter(each => each.topic === rows.topic).flatMap(each => each.partitions)

/** Commits what was read of the partitions that are still this member's. */
async function commit() {
  const mine = new Set(owned())
  const offsets = [...rows.next].filter(([partition]) => mine.has(partition))
    .map(([partition, offset]) => ({ topic: rows.topic, partition, offset, leaderEpoch: -1 }))
  rows.next.clear()
  if (offsets.length) await consumer.commit({ offsets })
}

/** Reads on from what is committed. A stream ends with an error when a leader dies, and another one goes on. */
async function read() {
  stream = await consumer.consume({ topics: [rows.topic], mode: 'committed', fallbackMode: 'earliest' })
  stream.on('data', message => rows.row(message.partition, message.offset, message.key, message.value))
  stream.on('error', error => {
    console.error(String(error))
    sleep(100).then(read).catch(again => { rows.failed = String(again) })
  })
}

const options = {
  classic: { sessionTimeout: 10000, rebalanceTimeout: 20000, heartbeatInterval: 1000 },
  cooperative: { sessionTimeout: 10000, rebalanceTimeout: 20000, heartbeatInterval: 1000,
    protocols: [{ name: 'cooperative-sticky', version: 1 }] },
  consumer: { groupProtocol: 'consumer' }
}

serve({
  version() {
    const main = createRequire(import.meta.url).resolve('@platformatic/kafka')
    return { version: JSON.parse(readFileSync(path(dirname(main), '..', 'package.json'))).version }
  },

  create: ({ topic, partitions, replicas }) => withAdmin(async admin => {
    await admin.createTopics({ topics: [topic], partitions, replicas })
  }),

  async produce(request) {
    const producer = new Producer({ ...base, serializers: stringSerializers, idempotent: request.idempotent === true })
    const send = messages => producer.send({ acks: -1, compression: request.codec,
      messages: messages.map(message => ({ ...message, topic: request.topic })) })
    const careful = request.idempotent !== null
    const told = await produce(request, careful ? byPartition(request.partitions, send) : send)
    await producer.close()
    return careful ? { ...told, note: ONE_BY_ONE } : told
  },

  async join(request) {
    rows = new Rows(request)
    consumer = new Consumer({ ...base, groupId: request.group, autocommit: false, deserializers: stringDeserializers,
      maxWaitTime: 500, ...options[request.protocol] })
    await read()
    committing = (async () => {
      while (!ending) {
        await sleep(100)
        // Refused while the group rebalances: then the records are read again by whoever gets the partition.
        await commit().catch(error => console.error(String(error)))
      }
    })()
  },

  state: () => ({ assigned: owned(), read: rows.read, failed: rows.failed }),

  async leave() {
    stream.pause()
    ending = true
    await committing
    await commit()
    await stream.close()
    await consumer.close(true)
    return { read: rows.read }
  },

  lookup: ({ topic, timestamp }) => withAdmin(async admin => {
    const metadata = await admin.metadata({ topics: [topic] })
    const partitions = metadata.topics.get(topic).partitions.map((_, n) => ({ partitionIndex: n, timestamp: BigInt(timestamp) }))
    const found = await admin.listOffsets({ topics: [{ name: topic, partitions }] })
    return { offsets: Object.fromEntries(found[0].partitions.map(at => [at.partitionIndex, Number(at.offset)])) }
  }),

  configs: ({ topic, key, value }) => withAdmin(async admin => {
    const resource = { resourceType: ConfigResourceTypes.TOPIC, resourceName: topic }
    const configs = [{ name: key, value, configOperation: IncrementalAlterConfigOperationTypes.SET }]
    await admin.incrementalAlterConfigs({ resources: [{ ...resource, configs }] })
    const told = await admin.describeConfigs({ resources: [{ ...resource, configurationKeys: [key] }] })
    return { value: told[0].configs[0].value }
  }),

  groups: ({ group }) => withAdmin(async admin => {
    const listed = await admin.listGroups()
    const described = await admin.describeGroups({ groups: [group] })
    const offsets = await admin.listConsumerGroupOffsets({ groups: [group] })
    return { listed: listed.has(group), state: described.get(group).state,
      committed: Object.fromEntries(offsets[0].topics.flatMap(each => each.partitions)
        .map(at => [at.partitionIndex, Number(at.committedOffset)])) }
  }),

  delete: ({ topic, group }) => withAdmin(async admin => {
    await admin.deleteGroups({ groups: [group] })
    await admin.deleteTopics({ topics: [topic] })
  })
})
