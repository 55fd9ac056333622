"""Driver of kafka-python, which is Python alone."""
import kafka
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, NewTopic
from kafka.consumer.subscription_state import AsyncConsumerRebalanceListener
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.structs import OffsetAndMetadata

import driver

ASSIGNORS = {"classic": RangePartitionAssignor, "cooperative": CooperativeStickyAssignor}


class Revoked(AsyncConsumerRebalanceListener):
    """Called in kafka-python's own thread of I/O, where a commit is awaited."""

    def __init__(self, member):
        self.member = member

    async def on_partitions_revoked(self, revoked):
        done = self.member.take([p.partition for p in revoked])
        if done:
            await self.member.consumer.commit_async(self.member.places(done))

    async def on_partitions_assigned(self, assigned):
        pass


class Member(driver.Member):
    def open(self):
        self.consumer = KafkaConsumer(
            bootstrap_servers=self.bootstrap.split(","), group_id=self.group, auto_offset_reset="earliest",
            enable_auto_commit=False, session_timeout_ms=10_000, max_poll_records=5000,
            partition_assignment_strategy=[ASSIGNORS[self.protocol]])
        self.consumer.subscribe([self.topic], listener=Revoked(self))

    def poll(self):
        polled = self.consumer.poll(timeout_ms=100)
        return [(m.partition, m.offset, m.key, m.value) for messages in polled.values() for m in messages]

    def owned(self):
        return [p.partition for p in self.consumer.assignment()]

    def places(self, offsets):
        return {TopicPartition(self.topic, p): OffsetAndMetadata(o, "", -1) for p, o in offsets.items()}

    def commit(self, offsets):
        self.consumer.commit(self.places(offsets))

    def close(self):
        self.consumer.close(autocommit=False)


class Driver(driver.Driver):
    member_class = Member

    def __init__(self):
        super().__init__()
        self.servers = self.bootstrap.split(",")

    def admin(self):
        return KafkaAdminClient(bootstrap_servers=self.servers)

    def version(self, _):
        return {"version": kafka.__version__}

    def join(self, request):
        if request["protocol"] == "consumer":
            raise driver.NotAvailable("no KIP-848")
        return super().join(request)

    def create(self, request):
        self.admin().create_topics([NewTopic(request["topic"], request["partitions"], request["replicas"])])
        return {}

    def produce(self, request):
        settings = {}
        if request["idempotent"] is not None:
            settings["enable_idempotence"] = request["idempotent"]
        if request["idempotent"] is False:
            settings["max_in_flight_requests_per_connection"] = 1
        codec = None if request["codec"] == "none" else request["codec"]
        producer = KafkaProducer(bootstrap_servers=self.servers, acks="all", compression_type=codec, linger_ms=5, **settings)
        pace, futures = driver.Pace(request.get("rate")), []
        for number in range(request["count"]):
            while pace.due(number):
                driver.time.sleep(min(pace.due(number), 0.01))
            sent = producer.send(request["topic"], key=driver.key(number), value=driver.value(request["tag"], number))
            settle = pace.sent()
            sent.add_callback(lambda _, settle=settle: settle())
            sent.add_errback(settle)
            futures.append(sent)
        producer.flush(90)
        producer.close()
        pace.failed += sum(not future.is_done for future in futures)
        return pace.answer()

    def lookup(self, request):
        consumer = KafkaConsumer(bootstrap_servers=self.servers)
        places = [TopicPartition(request["topic"], p) for p in consumer.partitions_for_topic(request["topic"])]
        found = consumer.offsets_for_times({place: request["timestamp"] for place in places})
        consumer.close()
        return {"offsets": {place.partition: at.offset if at else -1 for place, at in found.items()}}

    def configs(self, request):
        resource = ConfigResource(ConfigResourceType.TOPIC, request["topic"], {request["key"]: request["value"]})
        self.admin().alter_configs([resource])
        told = self.admin().describe_configs([ConfigResource(ConfigResourceType.TOPIC, request["topic"])])
        return {"value": told["topic"][request["topic"]][request["key"]]["value"]}

    def groups(self, request):
        group = request["group"]
        listed = {each["group_id"] for each in self.admin().list_groups()}
        offsets = self.admin().list_group_offsets([group])[group]
        return {"listed": group in listed, "state": self.admin().describe_groups([group])[group]["group_state"],
                "committed": {place.partition: at.offset for place, at in offsets.items()}}

    def delete(self, request):
        self.admin().delete_groups([request["group"]])
        self.admin().delete_topics([request["topic"]])
        return {}


Driver().serve()
