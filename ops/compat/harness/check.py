"""What must be true, judged past the client under test: by the project's own command line and by `wire`."""
import json
from collections import Counter, defaultdict

from . import wire
from .driver import ClientFailed


def require(truth, message):
    if not truth:
        raise ClientFailed(message)


def expected_key(number):
    return f"k{number % 1000}"


def rows(text):
    """Lines `partition offset key value` as tuples; the value is `tag-number`."""
    for line in text:
        partition, offset, key, value = line.rstrip("\n").split(" ")
        yield int(partition), int(offset), key, value


def on_disk(cluster, topic):
    """Every record of the topic, as SDK users read it over gRPC."""
    return list(rows(cluster.cli("consume", topic, "--exit-at-end", "--format", "%p %o %k %v").splitlines()))


def created(cluster, topic, partitions, replicas):
    described = cluster.describe(topic)["partitions"]
    require(len(described) == partitions, f"{len(described)} partitions")
    for partition in described:
        require(len(partition["replicas"]) == replicas, f"replicas {partition['replicas']}")
        require(partition["leader"] in partition["replicas"], f"no leader: {partition}")


def produced(found, tag, count):
    """Each of `count` records of `tag` is there once, under its key, and a key stays in one partition and in its order."""
    numbers, places, last = Counter(), {}, {}
    for partition, offset, key, value in found:
        its_tag, _, number = value.rpartition("-")
        if its_tag != tag:
            continue
        number = int(number)
        numbers[number] += 1
        require(key == expected_key(number), f"{value} has the key {key}")
        require(places.setdefault(key, partition) == partition, f"{key} is in two partitions")
        require(last.get(key, -1) < number, f"{value} at {partition}/{offset} comes behind {key}'s {last.get(key)}")
        last[key] = number
    missing = [n for n in range(count) if n not in numbers]
    require(not missing, f"{len(missing)} of {count} records are missing: {missing[:5]}")
    twice = [n for n, times in numbers.items() if times > 1]
    require(not twice, f"{len(twice)} records are there twice: {twice[:5]}")
    require(len(numbers) == count, f"{len(numbers) - count} records that nobody sent")


def kept(found, tag, count):
    """Each of `count` records of `tag` is there; returns how many are there again (a retry without idempotence)."""
    numbers = Counter(int(value.rpartition("-")[2]) for _, _, _, value in found if value.rpartition("-")[0] == tag)
    missing = [n for n in range(count) if n not in numbers]
    require(not missing, f"{len(missing)} of {count} acknowledged records are lost: {missing[:5]}")
    require(len(numbers) == count, f"{len(numbers) - count} records that nobody sent")
    return sum(numbers.values()) - count


def compressed(batches, codec, begin, end):
    """The batches between the offsets `begin` and `end` of each partition are of this codec; a client may leave one as it
    is that would grow."""
    mine = [b for b in batches if begin[b.partition] <= b.base_offset < end[b.partition]]
    codecs = Counter(batch.codec for batch in mine)
    require(mine and codecs[codec], f"no batch with {codec}: {dict(codecs)}")
    require(set(codecs) <= {codec, "none"}, f"batches with {dict(codecs)}")
    return len(mine)


def idempotent(batches):
    without = [batch for batch in batches if batch.producer_id < 0]
    require(not without, f"{len(without)} of {len(batches)} batches have no producer id")


def consumed(files, found):
    """The members of a group have read together what is in the topic (`found`) and nothing else. Returns how many records
    were read again, which a group may do when partitions move."""
    truth = {(partition, offset): (key, value) for partition, offset, key, value in found}
    seen = Counter()
    for path in files:
        with open(path, encoding="utf-8") as lines:
            for partition, offset, key, value in rows(lines):
                require(truth.get((partition, offset)) == (key, value), f"read {key}={value} at {partition}/{offset}, where "
                        f"{truth.get((partition, offset))} is")
                seen[partition, offset] += 1
    missing = sorted(place for place in truth if place not in seen)
    require(not missing, f"{len(missing)} of {len(truth)} records were not read, the first at {missing[:3]}")
    return sum(seen.values()) - len(seen)


def in_order(path):
    """One member that keeps its partitions reads each of them upwards."""
    last = defaultdict(lambda: -1)
    with open(path, encoding="utf-8") as lines:
        for partition, offset, _key, _value in rows(lines):
            require(offset > last[partition], f"{partition}/{offset} was read behind {last[partition]}")
            last[partition] = offset


def first_at(cluster, topic, timestamp):
    """{partition: offset of the first record at or after `timestamp`, -1 if there is none}, by looking at all of them."""
    first = {p["partition"]: -1 for p in cluster.describe(topic)["partitions"]}
    for line in cluster.cli("consume", topic, "--exit-at-end", "--format", "%p %o %T").splitlines():
        partition, offset, time = map(int, line.split(" "))
        if time >= timestamp and first[partition] < 0:
            first[partition] = offset
    return first


def committed(cluster, group):
    """{partition: offset} of what the group has committed, over gRPC."""
    described = json.loads(cluster.cli("group", "describe", group, "--json"))
    return {p["partition"]: p["committed"] for p in described["partitions"] if p["committed"] is not None}


def left(cluster, topic, group):
    """How many records of the topic lie behind what the group has committed."""
    done = committed(cluster, group)
    return sum(end - done.get(partition, 0) for partition, end in end_offsets(cluster, topic).items())


def end_offsets(cluster, topic):
    return wire.Cluster(cluster.bootstrap).offsets(topic, wire.LATEST)
