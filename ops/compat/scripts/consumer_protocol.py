"""librdkafka with group.protocol=consumer (KIP-848): members come, go, restart; topics grow; patterns; both protocols.

    python consumer_protocol.py 127.0.0.1:9092
"""
import sys
import threading
import time
import uuid

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

BOOTSTRAP = sys.argv[1]
RUN = uuid.uuid4().hex[:6]
admin = AdminClient({"bootstrap.servers": BOOTSTRAP})


def create(name, partitions):
    name = f"{name}-{RUN}"
    for done in admin.create_topics([NewTopic(name, partitions)]).values():
        done.result()
    return name


def produce(topic, count):
    failed = []
    producer = Producer({"bootstrap.servers": BOOTSTRAP})
    for n in range(count):
        producer.produce(topic, key=str(n), value=f"v{n}", callback=lambda error, _: error and failed.append(error))
        producer.poll(0)
    assert producer.flush(30) == 0 and not failed, failed


class Member:
    """A consumer in a thread, which commits what it has read before it gives partitions up."""

    running = []

    def __init__(self, group, topics, **settings):
        base = {"bootstrap.servers": BOOTSTRAP, "group.id": group, "group.protocol": "consumer"}
        base |= {"auto.offset.reset": "earliest", "enable.auto.commit": False}
        self.seen, self.errors, self.assigned, self.stopping = [], [], set(), False
        self.consumer = Consumer(base | settings)
        places = lambda partitions: {(p.topic, p.partition) for p in partitions}
        self.consumer.subscribe(
            topics,
            on_assign=lambda _, got: self.assigned.update(places(got)),
            on_revoke=lambda _, gone: (self.commit(), self.assigned.difference_update(places(gone))),
            on_lost=lambda _, gone: (self.errors.append("lost"), self.assigned.difference_update(places(gone))),
        )
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()
        Member.running.append(self)

    def commit(self):
        try:
            self.consumer.commit(asynchronous=False)
        except Exception as error:
            if "_NO_OFFSET" not in str(error):
                self.errors.append(f"commit: {error}")

    def run(self):
        while not self.stopping:
            message = self.consumer.poll(0.1)
            if message is None:
                continue
            if message.error():
                self.errors.append(str(message.error()))
            else:
                self.seen.append((message.topic(), message.partition(), message.offset()))
        self.consumer.close()

    def close(self):
        Member.running.remove(self)
        self.stopping = True
        self.thread.join()
        assert not self.errors, self.errors


def shares():
    return sorted(len(member.assigned) for member in Member.running)


def until(what, condition, seconds=90):
    start = time.monotonic()
    while not condition():
        if time.monotonic() - start > seconds:
            print("FAILED", what)
            for member in Member.running:
                print("   ", sorted(member.assigned), len(member.seen), member.errors[:3])
            sys.exit(1)
        time.sleep(0.05)
    print(f"ok   {what} ({time.monotonic() - start:.1f} s)")


topic, group = create("rows", 6), f"group-{RUN}"
produce(topic, 600)
first = Member(group, [topic])
until("one member has all partitions", lambda: shares() == [6])
until("and reads everything", lambda: len(first.seen) == 600)
second, third = Member(group, [topic]), Member(group, [topic])
until("three members share them", lambda: shares() == [2, 2, 2])
produce(topic, 600)
everything = lambda: [row for member in (first, second, third) for row in member.seen]
until("and read on", lambda: len(set(everything())) == 1200)
assert len(everything()) == 1200, f"{len(everything())} records read, of 1200"
print("ok   nothing was read twice")

described = admin.describe_consumer_groups([group])[group].result()
assert described.state.name == "STABLE" and len(described.members) == 3, described
listed = [g for g in admin.list_consumer_groups().result().valid if g.group_id == group]
assert listed[0].type.name == "CONSUMER", listed
print(f"ok   described: {described.state.name}, {described.partition_assignor}")

second.close()
until("one leaves, two share", lambda: shares() == [3, 3])
for done in admin.create_partitions([NewPartitions(topic, 8)]).values():
    done.result()
until("the topic grows", lambda: shares() == [4, 4])
first.close()
third.close()
reader = Consumer({"bootstrap.servers": BOOTSTRAP, "group.id": group, "group.protocol": "consumer"})
committed = reader.committed([TopicPartition(topic, n) for n in range(6)], timeout=10)
reader.close()
assert sum(place.offset for place in committed) == 1200, committed
print("ok   all is committed")

one, two = (Member(f"static-{RUN}", [topic], **{"group.instance.id": name}) for name in ("one", "two"))
until("static members share", lambda: shares() == [4, 4])
had, other = set(one.assigned), set(two.assigned)
one.close()
again = Member(f"static-{RUN}", [topic], **{"group.instance.id": "one"})
until("one comes back to what it had", lambda: again.assigned == had)
assert two.assigned == other
again.close()
two.close()

create("pattern-a", 1), create("pattern-b", 1)
matching = Member(f"pattern-{RUN}", [f"^pattern-.*-{RUN}"])
until("a pattern matches two topics", lambda: shares() == [2])
create("pattern-c", 2)
until("and one that comes later", lambda: shares() == [4])
matching.close()

classic = Member(group, [topic], **{"group.protocol": "classic", "session.timeout.ms": 6000})
until("an empty group takes a member of the classic protocol", lambda: shares() == [8])
stranger = Consumer({"bootstrap.servers": BOOTSTRAP, "group.id": group, "group.protocol": "consumer"})
stranger.subscribe([topic])
refusal, deadline = None, time.monotonic() + 20
while refusal is None and time.monotonic() < deadline:
    message = stranger.poll(0.2)
    refusal = message.error() if message is not None else None
print(f"ok   and then none of the other: {refusal}" if refusal else "FAILED a member of the other protocol")
stranger.close()
classic.close()
for done in admin.delete_consumer_groups([group]).values():
    done.result()
print("ok   deleted")
sys.exit(0 if refusal else 1)
