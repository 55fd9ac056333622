"""Driver of aiokafka (asyncio)."""
import asyncio

import aiokafka
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import for_code

import driver


class Revoked(ConsumerRebalanceListener):
    def __init__(self, member):
        self.member = member

    async def on_partitions_revoked(self, revoked):
        await self.member.commit_later(self.member.take([p.partition for p in revoked]))

    async def on_partitions_assigned(self, assigned):
        pass


class Member(driver.Member):
    def open(self):
        self.loop = asyncio.new_event_loop()
        self.loop.run_until_complete(self.start())

    async def start(self):
        self.consumer = AIOKafkaConsumer(
            bootstrap_servers=self.bootstrap, group_id=self.group, auto_offset_reset="earliest", enable_auto_commit=False,
            session_timeout_ms=10_000, partition_assignment_strategy=[RangePartitionAssignor])
        self.consumer.subscribe([self.topic], listener=Revoked(self))
        await self.consumer.start()

    def poll(self):
        polled = self.loop.run_until_complete(self.consumer.getmany(timeout_ms=100, max_records=5000))
        return [(m.partition, m.offset, m.key, m.value) for messages in polled.values() for m in messages]

    def owned(self):
        return [p.partition for p in self.consumer.assignment()]

    def commit(self, offsets):
        self.loop.run_until_complete(self.commit_later(offsets))

    async def commit_later(self, offsets):
        if offsets:
            await self.consumer.commit({TopicPartition(self.topic, p): o for p, o in offsets.items()})

    def close(self):
        self.loop.run_until_complete(self.consumer.stop())


def check(code, message=None):
    if code:
        raise for_code(code)(message)


class Driver(driver.Driver):
    member_class = Member

    def with_admin(self, work):
        async def run():
            admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
            await admin.start()
            try:
                return await work(admin)
            finally:
                await admin.close()
        return asyncio.run(run())

    def version(self, _):
        return {"version": aiokafka.__version__}

    def join(self, request):
        if request["protocol"] != "classic":
            raise driver.NotAvailable("no KIP-848" if request["protocol"] == "consumer" else "no cooperative assignor")
        return super().join(request)

    def create(self, request):
        async def work(admin):
            answer = await admin.create_topics([NewTopic(request["topic"], request["partitions"], request["replicas"])])
            for error in answer.topic_errors:
                check(error[1], error[0])
        self.with_admin(work)
        return {}

    def produce(self, request):
        return asyncio.run(self.produce_all(request))

    async def produce_all(self, request):
        settings = {} if request["idempotent"] is None else {"enable_idempotence": request["idempotent"]}
        codec = None if request["codec"] == "none" else request["codec"]
        producer = AIOKafkaProducer(bootstrap_servers=self.bootstrap, acks="all", compression_type=codec, linger_ms=5,
                                    **settings)
        await producer.start()
        pace, sent = driver.Pace(request.get("rate")), []
        for number in range(request["count"]):
            while pace.due(number):
                await asyncio.sleep(min(pace.due(number), 0.01))
            settle = pace.sent()
            future = await producer.send(request["topic"], key=driver.key(number), value=driver.value(request["tag"], number))
            future.add_done_callback(lambda done, settle=settle: settle(done.exception()))
            sent.append(future)
        await asyncio.wait_for(asyncio.gather(*sent, return_exceptions=True), 90)
        await producer.stop()
        return pace.answer()

    def lookup(self, request):
        async def run():
            consumer = AIOKafkaConsumer(request["topic"], bootstrap_servers=self.bootstrap)
            await consumer.start()
            places = [TopicPartition(request["topic"], p) for p in consumer.partitions_for_topic(request["topic"])]
            found = await consumer.offsets_for_times({place: request["timestamp"] for place in places})
            await consumer.stop()
            return {"offsets": {place.partition: at.offset if at else -1 for place, at in found.items()}}
        return asyncio.run(run())

    def configs(self, request):
        async def work(admin):
            kind = ConfigResourceType.TOPIC
            await admin.alter_configs([ConfigResource(kind, request["topic"], {request["key"]: request["value"]})])
            told = await admin.describe_configs([ConfigResource(kind, request["topic"])])
            return {entry[0]: entry[1] for entry in told[0].resources[0][4]}
        return {"value": self.with_admin(work)[request["key"]]}

    def groups(self, request):
        async def work(admin):
            group = request["group"]
            listed = await admin.list_consumer_groups()
            described = await admin.describe_consumer_groups([group])
            offsets = await admin.list_consumer_group_offsets(group)
            return {"listed": group in {each[0] for each in listed}, "state": described[0].groups[0][2],
                    "committed": {place.partition: at.offset for place, at in offsets.items()}}
        return self.with_admin(work)

    def delete(self, request):
        async def work(admin):
            answer = await admin.delete_topics([request["topic"]])
            for error in answer.topic_error_codes:
                check(error[1], error[0])
        self.with_admin(work)
        return {"kept": "group", "note": "no deletion of groups"}


Driver().serve()
