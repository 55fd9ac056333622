"""An idempotent librdkafka producer while a node is killed: `python failover.py BOOTSTRAP PID_FILE [SECONDS]`. The node is
killed with SIGKILL half way. Nothing may be lost and nothing may be there twice; prints the longest stall."""
import os
import signal
import sys
import time
import uuid

from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic

BOOTSTRAP, PID_FILE = sys.argv[1], sys.argv[2]
SECONDS = float(sys.argv[3]) if len(sys.argv) > 3 else 10
TOPIC = "compat-failover-" + uuid.uuid4().hex[:8]
PARTITIONS = 6

admin = AdminClient({"bootstrap.servers": BOOTSTRAP})
for future in admin.create_topics([NewTopic(TOPIC, PARTITIONS, 3)]).values():
    future.result(30)

acknowledged, errors, arrivals = set(), [], []


def delivered(number):
    def call(error, _message):
        arrivals.append(time.monotonic())
        errors.append(error) if error else acknowledged.add(number)
    return call


producer = Producer({"bootstrap.servers": BOOTSTRAP, "enable.idempotence": True, "linger.ms": 2,
                     "message.timeout.ms": 60_000})
began, sent, killed = time.monotonic(), 0, False
while time.monotonic() - began < SECONDS:
    if not killed and time.monotonic() - began > SECONDS / 2:
        os.kill(int(open(PID_FILE).read()), signal.SIGKILL)
        killed = True
    try:
        producer.produce(TOPIC, key=str(sent), value=str(sent), on_delivery=delivered(sent))
        sent += 1
    except BufferError:
        producer.poll(0.01)
    producer.poll(0)
    if sent % 50 == 0:
        time.sleep(0.001)  # a steady stream, not a flood
left = producer.flush(90)
stall = max(b - a for a, b in zip(arrivals, arrivals[1:]))

reader = Consumer({"bootstrap.servers": BOOTSTRAP, "group.id": TOPIC, "auto.offset.reset": "earliest",
                   "enable.auto.commit": False, "enable.partition.eof": False})
reader.subscribe([TOPIC])
seen, count, quiet = set(), 0, time.monotonic()
while time.monotonic() - quiet < 8:
    for message in reader.consume(2000, 0.5):
        if message.error():
            continue
        seen.add(int(message.value()))
        count += 1
        quiet = time.monotonic()
reader.close()
lost = acknowledged - seen
twice = count - len(seen)
print(f"sent {sent}, acknowledged {len(acknowledged)}, read {count}, lost {len(lost)}, twice {twice}, "
      f"failed {len(errors)}, unsent {left}, longest stall {stall:.2f} s")
sys.exit(1 if lost or twice or errors or left else 0)
