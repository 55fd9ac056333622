"""confluent-kafka (librdkafka) against a running cluster: `python confluent.py BOOTSTRAP`. Prints one line for each step
and ends with 1 if one failed."""
import sys
import time
import uuid

from confluent_kafka import (Consumer, KafkaError, KafkaException, Producer, TopicPartition, OFFSET_BEGINNING,
                             ConsumerGroupTopicPartitions)
from confluent_kafka.admin import (AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, NewTopic,
                                   OffsetSpec)

BOOTSTRAP = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:9092"
RECORDS = int(sys.argv[2]) if len(sys.argv) > 2 else 10_000
TOPIC = "compat-confluent-" + uuid.uuid4().hex[:8]
GROUP = "group-" + TOPIC
failed = False


def step(name):
    def run(work):
        global failed
        began = time.monotonic()
        try:
            said = work()
            print(f"ok    {name} ({time.monotonic() - began:.2f} s) {said or ''}", flush=True)
        except Exception as error:  # every failure is a cell of the matrix
            failed = True
            print(f"FAIL  {name}: {type(error).__name__}: {error}", flush=True)
        return work
    return run


admin = AdminClient({"bootstrap.servers": BOOTSTRAP})


def results(futures):
    return {key: future.result(30) for key, future in futures.items()}


@step("create a topic with 6 partitions and 3 replicas")
def _():
    results(admin.create_topics([NewTopic(TOPIC, 6, 3)]))
    described = admin.list_topics(TOPIC, timeout=10).topics[TOPIC]
    assert len(described.partitions) == 6, described.partitions
    assert all(len(p.replicas) == 3 and p.leader > 0 for p in described.partitions.values())


@step("a topic that exists is refused by name")
def _():
    try:
        results(admin.create_topics([NewTopic(TOPIC, 1, 1)]))
        raise AssertionError("created twice")
    except KafkaException as error:
        assert error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS, error


def produce(codec, count, idempotent=True, **more):
    errors, offsets = [], []
    producer = Producer({"bootstrap.servers": BOOTSTRAP, "compression.type": codec, "linger.ms": 5,
                         "enable.idempotence": idempotent, **more})

    def delivered(error, message):
        errors.append(error) if error else offsets.append((message.partition(), message.offset()))
    for i in range(count):
        while True:
            try:
                producer.produce(TOPIC, key=f"key-{i % 1000}", value=f"{codec}-{i}", on_delivery=delivered,
                                 headers=[("codec", codec.encode())])
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)
    assert producer.flush(60) == 0, "not everything was delivered"
    assert not errors, errors[:3]
    assert len(set(offsets)) == count, "an offset was given twice"


for codec in ["none", "gzip", "snappy", "lz4", "zstd"]:
    step(f"produce {RECORDS} records with {codec}")(lambda codec=codec: produce(codec, RECORDS))
step("produce without idempotence, acks=1")(lambda: produce("none", 1000, idempotent=False, acks=1))
TOTAL = 5 * RECORDS + 1000


def consumer(group, **more):
    return Consumer({"bootstrap.servers": BOOTSTRAP, "group.id": group, "auto.offset.reset": "earliest",
                     "enable.auto.commit": False, "session.timeout.ms": 6000, **more})


def read(reader, wanted, seconds=60):
    got, until = [], time.monotonic() + seconds
    while len(got) < wanted and time.monotonic() < until:
        for message in reader.consume(1000, 0.5):
            assert not message.error(), message.error()
            got.append(message)
    assert len(got) == wanted, f"{len(got)} of {wanted} records"
    return got


@step("consume everything in a group, commit, and find nothing left")
def _():
    reader = consumer(GROUP)
    reader.subscribe([TOPIC])
    got = read(reader, TOTAL)
    values = {m.value() for m in got}
    assert len(values) >= 5 * RECORDS, "a record was read twice"
    assert got[0].headers()[0][0] == "codec"
    reader.commit(asynchronous=False)
    reader.close()
    again = consumer(GROUP)
    again.subscribe([TOPIC])
    left = again.consume(1, 5)
    assert not left, f"{len(left)} records came again"
    again.close()


@step("two members share the partitions, cooperative and eager")
def _():
    for strategy in ["cooperative-sticky", "range"]:
        group = f"{GROUP}-{strategy}"
        first = consumer(group, **{"partition.assignment.strategy": strategy})
        second = consumer(group, **{"partition.assignment.strategy": strategy})
        first.subscribe([TOPIC])
        second.subscribe([TOPIC])
        until = time.monotonic() + 30
        while time.monotonic() < until:
            first.poll(0.2)
            second.poll(0.2)
            owned = [len(first.assignment()), len(second.assignment())]
            if owned == [3, 3]:
                break
        assert owned == [3, 3], f"{strategy}: {owned}"
        second.close()
        until = time.monotonic() + 30
        while time.monotonic() < until and len(first.assignment()) != 6:
            first.poll(0.2)
        assert len(first.assignment()) == 6, f"{strategy}: {len(first.assignment())}"
        first.close()


@step("commit with metadata and read it back")
def _():
    reader = consumer(GROUP + "-meta")
    reader.commit(offsets=[TopicPartition(TOPIC, 0, 7, metadata="what I noted")], asynchronous=False)
    committed = reader.committed([TopicPartition(TOPIC, 0), TopicPartition(TOPIC, 1)], timeout=10)
    assert (committed[0].offset, committed[0].metadata) == (7, "what I noted"), committed
    assert committed[1].offset < 0, committed
    reader.close()


@step("look up offsets by time, and the ends")
def _():
    reader = consumer(GROUP + "-times")
    low, high = reader.get_watermark_offsets(TopicPartition(TOPIC, 0), timeout=10)
    assert low == 0 and high > 0, (low, high)
    ahead = reader.offsets_for_times([TopicPartition(TOPIC, 0, int(time.time() * 1000) + 3_600_000)], timeout=10)
    assert ahead[0].offset < 0, ahead
    first = reader.offsets_for_times([TopicPartition(TOPIC, 0, 1)], timeout=10)
    assert first[0].offset == 0, first
    reader.close()
    for spec in [OffsetSpec.earliest(), OffsetSpec.latest(), OffsetSpec.max_timestamp()]:
        found = results(admin.list_offsets({TopicPartition(TOPIC, 0): spec}))
        assert all(f.offset >= 0 for f in found.values()), found


@step("seek into the middle of a batch")
def _():
    reader = consumer(GROUP + "-seek")
    reader.assign([TopicPartition(TOPIC, 0, 5)])
    message = reader.poll(10)
    assert message and message.offset() == 5, message
    reader.close()


@step("describe and alter configurations")
def _():
    resource = ConfigResource(ConfigResource.Type.TOPIC, TOPIC)
    before = results(admin.describe_configs([resource]))[resource]
    assert before["retention.ms"].value == "604800000", before["retention.ms"]
    change = ConfigResource(ConfigResource.Type.TOPIC, TOPIC, incremental_configs=[
        ConfigEntry("retention.ms", "86400000", incremental_operation=AlterConfigOpType.SET)])
    results(admin.incremental_alter_configs([change]))
    assert results(admin.describe_configs([resource]))[resource]["retention.ms"].value == "86400000"
    wrong = ConfigResource(ConfigResource.Type.TOPIC, TOPIC, incremental_configs=[
        ConfigEntry("no.such.key", "1", incremental_operation=AlterConfigOpType.SET)])
    try:
        results(admin.incremental_alter_configs([wrong]))
        raise AssertionError("an unknown key was taken")
    except KafkaException as error:
        assert error.args[0].code() == KafkaError.INVALID_CONFIG, error
    broker = ConfigResource(ConfigResource.Type.BROKER, "1")
    assert "node.id" in results(admin.describe_configs([broker]))[broker]


@step("more partitions")
def _():
    results(admin.create_partitions([NewPartitions(TOPIC, 8)]))
    assert len(admin.list_topics(TOPIC, timeout=10).topics[TOPIC].partitions) == 8


@step("list, describe and delete groups")
def _():
    listed = {g.group_id for g in admin.list_consumer_groups().result(30).valid}
    assert GROUP in listed, listed
    described = results(admin.describe_consumer_groups([GROUP]))[GROUP]
    assert described.state.name == "EMPTY", described.state
    offsets = results(admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(GROUP)]))
    assert sum(p.offset for g in offsets.values() for p in g.topic_partitions) == TOTAL
    results(admin.delete_consumer_groups([GROUP]))
    listed = {g.group_id for g in admin.list_consumer_groups().result(30).valid}
    assert GROUP not in listed, listed


@step("delete records")
def _():
    results(admin.delete_records([TopicPartition(TOPIC, 0, 10)]))
    reader = consumer(GROUP + "-low")
    low, _ = reader.get_watermark_offsets(TopicPartition(TOPIC, 0), timeout=10)
    assert low == 10, low
    reader.close()


@step("describe the cluster")
def _():
    cluster = admin.describe_cluster().result(30)
    assert len(cluster.nodes) >= 1 and cluster.cluster_id, cluster


@step("a transactional producer is refused at once")
def _():
    producer = Producer({"bootstrap.servers": BOOTSTRAP, "transactional.id": "t"})
    try:
        producer.init_transactions(20)
        raise AssertionError("there are no transactions")
    except KafkaException as error:
        return error.args[0].str()


@step("delete the topic")
def _():
    results(admin.delete_topics([TOPIC]))
    until = time.monotonic() + 10
    while TOPIC in admin.list_topics(timeout=10).topics and time.monotonic() < until:
        pass
    assert TOPIC not in admin.list_topics(timeout=10).topics


sys.exit(1 if failed else 0)
