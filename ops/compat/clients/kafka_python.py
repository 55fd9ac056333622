"""kafka-python (pure Python) against a running cluster: `python kafka_python.py BOOTSTRAP`. Prints one line for each step
and ends with 1 if one failed."""
import sys
import time
import uuid

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic
from kafka.structs import OffsetAndMetadata

BOOTSTRAP = (sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:9092").split(",")
RECORDS = int(sys.argv[2]) if len(sys.argv) > 2 else 5_000
TOPIC = "compat-python-" + uuid.uuid4().hex[:8]
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


admin = KafkaAdminClient(bootstrap_servers=BOOTSTRAP)


@step("create a topic")
def _():
    admin.create_topics([NewTopic(TOPIC, 3, 3)])


@step(f"produce {RECORDS} records, idempotent and not")
def _():
    for idempotent in [True, False]:
        producer = KafkaProducer(bootstrap_servers=BOOTSTRAP, enable_idempotence=idempotent, acks="all",
                                 compression_type="gzip", linger_ms=5)
        sent = [producer.send(TOPIC, key=b"k%d" % (i % 100), value=b"v%d" % i) for i in range(RECORDS)]
        producer.flush(60)
        places = {(m.partition, m.offset) for m in (future.get(30) for future in sent)}
        assert len(places) == RECORDS, "an offset was given twice"
        producer.close()


def consumer(**more):
    return KafkaConsumer(bootstrap_servers=BOOTSTRAP, auto_offset_reset="earliest", enable_auto_commit=False,
                         consumer_timeout_ms=15000, **more)


@step("consume in a group and commit")
def _():
    reader = consumer(group_id=GROUP)
    reader.subscribe([TOPIC])
    count = 0
    for _ in reader:
        count += 1
        if count == 2 * RECORDS:
            break
    assert count == 2 * RECORDS, count
    reader.commit()
    committed = [reader.committed(TopicPartition(TOPIC, n)) for n in range(3)]
    assert sum(committed) == 2 * RECORDS, committed
    reader.close()


@step("metadata of a commit comes back")
def _():
    reader = consumer(group_id=GROUP + "-meta")
    place = TopicPartition(TOPIC, 0)
    reader.assign([place])
    reader.commit({place: OffsetAndMetadata(3, "note", -1)})
    assert reader.committed(place, metadata=True).metadata == "note"
    reader.close()


@step("offsets by time")
def _():
    reader = consumer()
    place = TopicPartition(TOPIC, 0)
    reader.assign([place])
    assert reader.beginning_offsets([place])[place] == 0
    assert reader.end_offsets([place])[place] > 0
    assert reader.offsets_for_times({place: 1})[place].offset == 0
    reader.close()


@step("delete the topic")
def _():
    admin.delete_topics([TOPIC])


sys.exit(1 if failed else 0)
