// Driver of kafkajs. It brings gzip; snappy comes by its own package, lz4 and zstd as its manual says a codec is added.
import { createRequire } from 'node:module'
import zlib from 'node:zlib'
import kafkajs from 'kafkajs'
import snappy from 'kafkajs-snappy'
import lz4 from 'lz4-napi'
import { NotAvailable, ONE_BY_ONE, Rows, bootstrap, byPartition, produce, serve } from './driver.mjs'

const { CompressionCodecs, CompressionTypes, ConfigResourceTypes, Kafka, Partitioners, logLevel } = kafkajs
CompressionCodecs[CompressionTypes.Snappy] = snappy
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: encoder => lz4.compressFrame(encoder.buffer),
  decompress: buffer => lz4.decompressFrame(buffer)
})
CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: async encoder => zlib.zstdCompressSync(encoder.buffer),
  decompress: async buffer => zlib.zstdDecompressSync(buffer)
})
const codecs = { none: CompressionTypes.None, gzip: CompressionTypes.GZIP, snappy: CompressionTypes.Snappy,
  lz4: CompressionTypes.LZ4, zstd: CompressionTypes.ZSTD }

const kafka = new Kafka({ clientId: 'compat', brokers: bootstrap, logLevel: logLevel.WARN })
let consumer, rows, assigned = []

async function withAdmin(work) {
  const admin = kafka.admin()
  await admin.connect()
  try {
    return await work(admin)
  } finally {
    await admin.disconnect()
  }
}

serve({
  version: () => ({ version: createRequire(import.meta.url)('kafkajs/package.json').version }),

  create: ({ topic, partitions, replicas }) => withAdmin(admin => admin.createTopics({
    waitForLeaders: true, topics: [{ topic, numPartitions: partitions, replicationFactor: replicas }] })),

  async produce(request) {
    const producer = kafka.producer({ idempotent: request.idempotent === true, maxInFlightRequests: 1,
      createPartitioner: Partitioners.DefaultPartitioner, retry: { retries: 50, initialRetryTime: 100, maxRetryTime: 1000 } })
    await producer.connect()
    const send = messages => producer.send({ topic: request.topic, acks: -1, compression: codecs[request.codec], messages })
    const careful = request.idempotent !== null
    const told = await produce(request, careful ? byPartition(request.partitions, send) : send)
    await producer.disconnect()
    return careful ? { ...told, note: ONE_BY_ONE } : told
  },

  async join(request) {
    if (request.protocol === 'cooperative') throw new NotAvailable('eager assignors only')
    if (request.protocol === 'consumer') throw new NotAvailable('no KIP-848')
    rows = new Rows(request)
    consumer = kafka.consumer({ groupId: request.group, sessionTimeout: 10000, rebalanceTimeout: 20000,
      maxWaitTimeInMs: 500, retry: { retries: 50, maxRetryTime: 1000 } })
    consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => { assigned = payload.memberAssignment[request.topic] ?? [] })
    consumer.on(consumer.events.REBALANCING, () => { assigned = [] })
    consumer.on(consumer.events.CRASH, ({ payload }) => { rows.failed = payload.restart ? null : String(payload.error) })
    await consumer.connect()
    await consumer.subscribe({ topic: request.topic, fromBeginning: true })
    await consumer.run({
      eachBatchAutoResolve: false,
      eachBatch: async ({ batch, resolveOffset, heartbeat, isRunning, isStale }) => {
        for (const message of batch.messages) {
          if (!isRunning() || isStale()) break
          if (!rows.row(batch.partition, message.offset, message.key, message.value)) {
            consumer.pause([{ topic: request.topic }])
            break
          }
          resolveOffset(message.offset)
        }
        await heartbeat()
      }
    })
  },

  state: () => ({ assigned, read: rows.read, failed: rows.failed }),

  async leave() {
    await consumer.disconnect()
    return { read: rows.read }
  },

  lookup: ({ topic, timestamp }) => withAdmin(async admin => {
    const found = await admin.fetchTopicOffsetsByTimestamp(topic, timestamp)
    return { offsets: Object.fromEntries(found.map(at => [at.partition, Number(at.offset)])) }
  }),

  configs: ({ topic, key, value }) => withAdmin(async admin => {
    const resource = { type: ConfigResourceTypes.TOPIC, name: topic }
    await admin.alterConfigs({ resources: [{ ...resource, configEntries: [{ name: key, value }] }] })
    const told = await admin.describeConfigs({ resources: [{ ...resource, configNames: [key] }] })
    return { value: told.resources[0].configEntries[0].configValue }
  }),

  groups: ({ group, topic }) => withAdmin(async admin => {
    const { groups } = await admin.listGroups()
    const described = await admin.describeGroups([group])
    const offsets = await admin.fetchOffsets({ groupId: group, topics: [topic] })
    return { listed: groups.some(each => each.groupId === group), state: described.groups[0].state,
      committed: Object.fromEntries(offsets[0].partitions.map(at => [at.partition, Number(at.offset)])) }
  }),

  delete: ({ topic, group }) => withAdmin(async admin => {
    await admin.deleteGroups([group])
    await admin.deleteTopics({ topics: [topic] })
  })
})
