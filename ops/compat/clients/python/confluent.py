"""Driver of confluent-kafka-python (librdkafka)."""
import time

import confluent_kafka
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic

import driver

STRATEGIES = {"classic": "range", "cooperative": "cooperative-sticky"}


def result(futures):
    return {key: future.result(30) for key, future in futures.items()}


class Member(driver.Member):
    def open(self):
        settings = {"bootstrap.servers": self.bootstrap, "group.id": self.group, "auto.offset.reset": "earliest",
                    "enable.auto.commit": False}
        if self.protocol == "consumer":
            settings["group.protocol"] = "consumer"
        else:
            settings |= {"partition.assignment.strategy": STRATEGIES[self.protocol], "session.timeout.ms": 10_000}
        self.consumer = Consumer(settings)
        revoked = lambda _, partitions: self.give_up([p.partition for p in partitions])
        self.consumer.subscribe([self.topic], on_revoke=revoked)

    def poll(self):
        rows = []
        for message in self.consumer.consume(2000, 0.1):
            if message.error():
                if message.error().fatal() or not message.error().retriable():
                    print(message.error(), file=driver.sys.stderr)
                continue
            rows.append((message.partition(), message.offset(), message.key(), message.value()))
        return rows

    def owned(self):
        return [p.partition for p in self.consumer.assignment()]

    def commit(self, offsets):
        self.consumer.commit(offsets=[TopicPartition(self.topic, p, o) for p, o in offsets.items()], asynchronous=False)

    def close(self):
        self.consumer.close()


class Driver(driver.Driver):
    member_class = Member

    @property
    def admin(self):
        """A new one for each request: librdkafka waits for ever for a coordinator that it has remembered and that was out of
        the metadata for a while (https://github.com/confluentinc/librdkafka/issues/5511)."""
        self.latest = AdminClient({"bootstrap.servers": self.bootstrap})
        return self.latest

    def version(self, _):
        return {"version": f"{confluent_kafka.version()} (librdkafka {confluent_kafka.libversion()[0]})"}

    def create(self, request):
        result(self.admin.create_topics([NewTopic(request["topic"], request["partitions"], request["replicas"])]))
        return {}

    def produce(self, request):
        settings = {"bootstrap.servers": self.bootstrap, "compression.type": request["codec"], "linger.ms": 5, "acks": "all"}
        if request["idempotent"] is not None:
            settings["enable.idempotence"] = request["idempotent"]
        if request["idempotent"] is False:
            settings["max.in.flight.requests.per.connection"] = 1
        producer, pace = Producer(settings), driver.Pace(request.get("rate"))
        for number in range(request["count"]):
            while pace.due(number):
                producer.poll(min(pace.due(number), 0.01))
            acknowledged = pace.sent()
            while True:
                try:
                    producer.produce(request["topic"], key=driver.key(number), value=driver.value(request["tag"], number),
                                     on_delivery=lambda error, _, settle=acknowledged: settle(error))
                    break
                except BufferError:
                    producer.poll(0.1)
            producer.poll(0)
        pace.failed += producer.flush(90)
        return pace.answer()

    def lookup(self, request):
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": "none"})
        partitions = consumer.list_topics(request["topic"], 10).topics[request["topic"]].partitions
        asked = [TopicPartition(request["topic"], p, request["timestamp"]) for p in partitions]
        found = consumer.offsets_for_times(asked, timeout=10)
        consumer.close()
        return {"offsets": {p.partition: p.offset if p.offset >= 0 else -1 for p in found}}

    def configs(self, request):
        entry = ConfigEntry(request["key"], request["value"], incremental_operation=AlterConfigOpType.SET)
        change = ConfigResource(ConfigResource.Type.TOPIC, request["topic"], incremental_configs=[entry])
        result(self.admin.incremental_alter_configs([change]))
        resource = ConfigResource(ConfigResource.Type.TOPIC, request["topic"])
        return {"value": result(self.admin.describe_configs([resource]))[resource][request["key"]].value}

    def groups(self, request):
        group = request["group"]
        listed = {each.group_id for each in self.admin.list_consumer_groups().result(30).valid}
        described = result(self.admin.describe_consumer_groups([group]))[group]
        offsets = result(self.admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)]))[group]
        return {"listed": group in listed, "state": described.state.name,
                "committed": {p.partition: p.offset for p in offsets.topic_partitions}}

    def delete(self, request):
        result(self.admin.delete_consumer_groups([request["group"]]))
        result(self.admin.delete_topics([request["topic"]]))
        for _ in range(100):
            if request["topic"] not in self.admin.list_topics(timeout=10).topics:
                return {}
            time.sleep(0.1)
        raise RuntimeError("the topic is still listed")


Driver().serve()
