"""The steps of the matrix, the same for every client: what is asked of a driver, and what must have come of it.

A step is a method of `Run`; it returns a note for its cell (or nothing) and raises ClientFailed or NotAvailable. Steps lean on
what ran before them only through the topic, which the project's own command line makes where the client cannot.
"""
import os
import signal

from . import check, wire
from .cluster import wait
from .driver import ClientFailed, NotAvailable

CODECS = wire.CODECS
PARTITIONS, REPLICAS = 6, 3


class Run:
    """One client's way through the matrix. `count` is the records of each codec."""

    def __init__(self, client, cluster, directory, count, quick):
        self.client, self.cluster, self.count, self.quick = client, cluster, count, quick
        self.directory = directory
        self.directory.mkdir(parents=True)
        self.name = f"compat-{client.name}"
        self.topic, self.spawned = f"{self.name}-rows", []
        self.wire = wire.Cluster(cluster.bootstrap)
        self.driver = self.spawn()
        self.found = None
        self.ranges = {}

    # -- what the steps are made of

    def spawn(self):
        driver = self.client.start(self.cluster.bootstrap, self.directory / "log.txt")
        self.spawned.append(driver)
        return driver

    def close(self):
        for driver in self.spawned:
            driver.close()

    def contents(self):
        """What is in the topic of all codecs, once for all steps that only read it."""
        if self.found is None:
            self.found = check.on_disk(self.cluster, self.topic)
        check.require(self.found, "there is nothing to read: nothing was produced")
        return self.found

    def topic_for(self, name):
        """A topic of its own for a step."""
        topic = f"{self.name}-{name}"
        self.cluster.cli("topic", "create", topic, "--partitions", str(PARTITIONS), "--replication", str(REPLICAS))
        return topic

    def join(self, topic, group, protocol, **more):
        member = Member(self, topic, group, protocol, more)
        member.driver.ask("join", topic=topic, group=group, protocol=protocol, file=str(member.file), **more)
        return member

    # -- the steps

    def create(self):
        try:
            self.driver.ask("create", topic=self.topic, partitions=PARTITIONS, replicas=REPLICAS)
        except NotAvailable:
            self.topic_for("rows")
            raise
        check.created(self.cluster, self.topic, PARTITIONS, REPLICAS)

    def produce(self, codec):
        begin = check.end_offsets(self.cluster, self.topic)
        answer = self.driver.ask("produce", timeout=180, topic=self.topic, codec=codec, tag=codec, count=self.count,
                                 idempotent=None)
        check.require(not answer["failed"], f"{answer['failed']} records were refused: {answer.get('why')}")
        self.ranges[codec] = begin, check.end_offsets(self.cluster, self.topic)
        self.found = None
        check.produced(self.contents(), codec, self.count)
        batches = check.compressed(self.wire.batches(self.topic), codec, *self.ranges[codec])
        return f"{self.count // batches} a batch"

    def group(self, protocol):
        """One member, then three, then two, under way all the time; together they read everything and commit it."""
        group, members = f"{self.name}-{protocol}", []
        found = self.contents()
        try:
            first = self.join(self.topic, group, protocol)
            members.append(first)
            shares(members, [6])
            members += [self.join(self.topic, group, protocol) for _ in range(2)]
            shares(members, [2, 2, 2])
            left = members.pop(1)
            left.leave()
            shares(members, [3, 3])
            total = lambda: left.read + sum(member.state()["read"] for member in members)
            wait(f"{group} to have read {len(found)} records", lambda: total() >= len(found), 90)
            again = until_consumed(left, members, found)
            while members:
                members.pop().leave()
            lag = check.left(self.cluster, self.topic, group)
            check.require(lag == 0, f"{lag} records were read and are not committed")
            return f"{again} read again" if again else None
        except TimeoutError as error:
            raise ClientFailed(f"{error}; members: {[member.last for member in members]}") from error
        finally:
            for member in members:
                member.abandon()

    def resume(self):
        """Half is read and committed; a new process goes on with the very next record of each partition."""
        found, group = self.contents(), f"{self.name}-resume"
        first = self.join(self.topic, group, "classic", limit=len(found) // 2)
        wait("half to be read", lambda: first.state()["read"] >= len(found) // 2, 90)
        first.leave()
        lag = check.left(self.cluster, self.topic, group)
        check.require(lag == len(found) - first.read, f"{first.read} of {len(found)} were read, and {lag} are left")
        second = self.join(self.topic, group, "classic")
        wait("the rest to be read", lambda: second.state()["read"] >= lag, 90)
        second.leave()
        again = check.consumed([first.file, second.file], found)
        check.require(not again, f"{again} records were read by both")
        check.in_order(first.file), check.in_order(second.file)

    def lookup(self):
        """The offset of a time in the middle of what was produced, and of one in the future."""
        middle = self.wire.offsets(self.topic, 0)
        check.require(all(offset == 0 for offset in middle.values()), f"the broker's own answer: {middle}")
        times = sorted({int(line) for line in self.cluster.cli(
            "consume", self.topic, "--exit-at-end", "--format", "%T").splitlines()})
        for timestamp in [times[len(times) // 2], times[-1] + 3_600_000]:
            truth = check.first_at(self.cluster, self.topic, timestamp)
            told = self.driver.ask("lookup", topic=self.topic, timestamp=timestamp)["offsets"]
            told = {int(partition): offset for partition, offset in told.items()}
            ends = check.end_offsets(self.cluster, self.topic)
            # Where there is no such record, clients say so or give the end.
            same = all(told.get(p) == o or o < 0 and told.get(p) in (None, -1, ends[p]) for p, o in truth.items())
            check.require(same, f"at {timestamp}: {told}, and it is {truth}")

    def configs(self):
        value = str(86_400_000 + sum(map(ord, self.client.name)))
        ask = lambda: self.driver.ask("configs", topic=self.topic, key="retention.ms", value=value)["value"]
        there = lambda: {c["name"]: c["value"] for c in self.cluster.describe(self.topic)["configs"]}["retention.ms"]
        # As in Kafka, brokers hear of a change one after the other, and the one that is asked may not have yet.
        wait(f"the client to read {value}", lambda: ask() == value, 10)
        wait(f"retention.ms to be {value} over gRPC", lambda: there() == value, 10)

    def groups(self):
        group = f"{self.name}-resume"
        told = self.driver.ask("groups", group=group, topic=self.topic)
        check.require(told["listed"], "the group is not in the list")
        check.require(told["state"].lower() == "empty", f"the group without members is {told['state']}")
        committed = check.committed(self.cluster, group)
        told = {int(partition): offset for partition, offset in told["committed"].items()}
        check.require(told == committed, f"the client reads {told}, and committed are {committed}")

    def programs(self):
        """What a client brings of load generators and the like: what they wrote is there, and they read it all."""
        topic = self.topic_for("programs")
        told = self.driver.ask("programs", timeout=240, topic=topic, count=self.count)
        ends = sum(check.end_offsets(self.cluster, topic).values())
        check.require(told["read"] == told["produced"] == ends, f"{told}, and {ends} records are there")
        return f"{ends} records"

    def kill(self, killer):
        """A leader dies under a producer and a reader. Nothing acknowledged is lost, and the reader reads it all."""
        topic, group = self.topic_for("kill"), f"{self.name}-kill"
        count, rate = killer.load(self.quick)
        reader = self.join(topic, group, "classic")
        shares([reader], [6])
        answer = killer.under(self, topic, count, rate, idempotent=False)
        found = check.on_disk(self.cluster, topic)
        again = check.kept(found, "kill", count)
        wait(f"the reader to reach {len(found)}", lambda: reader.state()["read"] >= len(found), 60)
        reader.leave()
        check.consumed([reader.file], found)
        return stall_note(answer, again)

    def idempotent(self, killer):
        """The same with an idempotent producer: nothing is there twice, and each key's records are in their order."""
        topic = self.topic_for("idempotent")
        count, rate = killer.load(self.quick)
        answer = killer.under(self, topic, count, rate, idempotent=True)
        check.produced(check.on_disk(self.cluster, topic), "kill", count)
        check.idempotent(self.wire.batches(topic))
        return stall_note(answer, 0)

    def delete(self):
        """A client that cannot delete groups answers so (`kept`), with a note."""
        group = f"{self.name}-resume"
        answer = self.driver.ask("delete", topic=self.topic, group=group)
        listed = self.cluster.cli("topic", "list", "--json")
        check.require(f'"{self.topic}"' not in listed, "the topic is still there")
        if answer.get("kept") != "group":
            check.require(f'"{group}"' not in self.cluster.cli("group", "list", "--json"), "the group is still there")
        return answer.get("note")


class Member:
    """A member of a group: a driver of its own, which writes what it reads to a file."""

    def __init__(self, run, topic, group, protocol, settings):
        self.run, self.read, self.last = run, 0, {}
        self.driver = run.spawn()
        self.file = run.directory / f"{group}-{topic}-{len(run.spawned)}.txt"
        self.file.touch()

    def state(self):
        self.last = self.driver.ask("state")
        if self.last.get("failed"):
            raise ClientFailed(f"a member: {self.last['failed']}")
        self.read = self.last["read"]
        return self.last

    def leave(self):
        self.read = self.driver.ask("leave")["read"]
        self.driver.close()

    def abandon(self):
        os.kill(self.driver.process.pid, signal.SIGKILL)
        self.driver.close()


def shares(members, wanted):
    """Waits until the members have so many partitions each, and no partition has two owners."""
    def shared():
        owned = [member.state()["assigned"] for member in members]
        return sorted(map(len, owned)) == wanted and len({p for each in owned for p in each}) == sum(wanted)
    wait(f"members to own {wanted} partitions", shared, 60)


def until_consumed(left, members, found):
    """What is read again in a rebalance counts in `read`: the files decide."""
    last = [None]

    def whole():
        try:
            last[0] = check.consumed([left.file] + [member.file for member in members], found)
            return True
        except ClientFailed as error:
            last[0] = error
            if "were not read" not in str(error):
                raise
            for member in members:
                member.state()
            return False
    try:
        wait("everything to be read", whole, 30, every=0.5)
    except TimeoutError:
        raise last[0] from None
    return last[0]


def stall_note(answer, again):
    """The longest wait for an acknowledgement, and what retries without idempotence wrote again."""
    notes = [f"stall {answer['stall_ms'] / 1000:.1f} s"] if answer.get("stall_ms") is not None else []
    notes += [f"{again} written again"] if again else []
    notes += [answer["note"]] if answer.get("note") else []
    return ", ".join(notes) or None


FIRST = [("create", "create a topic, 6 partitions × 3 replicas", Run.create)]
FIRST += [(codec, f"produce, {codec}", lambda run, codec=codec: run.produce(codec)) for codec in CODECS]
FIRST += [
    ("classic", "group, members come and go: classic", lambda run: run.group("classic")),
    ("cooperative", "… cooperative", lambda run: run.group("cooperative")),
    ("consumer", "… KIP-848", lambda run: run.group("consumer")),
    ("resume", "commit, restart, resume", Run.resume),
    ("lookup", "offsets by timestamp", Run.lookup),
    ("configs", "describe and alter a configuration", Run.configs),
    ("groups", "list and describe a group, its offsets", Run.groups),
    ("programs", "test programs of its own", Run.programs),
]
KILLS = [
    ("kill", "kill -9 of a leader: produce and consume", Run.kill),
    ("idempotent", "… idempotent producer, no duplicate", Run.idempotent),
]
LAST = [("delete", "delete the topic and the group", Run.delete)]
STEPS = [(name, title) for name, title, _ in FIRST + KILLS + LAST]
