"""The few Kafka requests that the checker sends by itself, so that no client under test is its own witness.

Old, fixed versions without flexible fields: Metadata 1, ListOffsets 1, Fetch 10 (the first that may carry zstd). Of a fetched batch only the 61-byte header
of format 2 is read: its codec, its producer, how many records it says it has.

    length i32 | key i16 | version i16 | correlation i32 | client id string | body
"""
import socket
import struct
import time
from collections import namedtuple

Batch = namedtuple("Batch", "partition base_offset last_offset codec producer_id records")

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
EARLIEST, LATEST = -2, -1
HEADER = struct.Struct(">qiibIhiqqqhii")


class Refused(Exception):
    """The broker answered with this Kafka error code, or could not be asked in time."""


def text(value):
    data = value.encode()
    return struct.pack(">h", len(data)) + data


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, form):
        size = struct.calcsize(">" + form)
        found = struct.unpack_from(">" + form, self.data, self.at)
        self.at += size
        return found[0] if len(found) == 1 else found

    def bytes(self, length):
        if length < 0:
            return b""
        found = self.data[self.at:self.at + length]
        self.at += length
        return found

    def text(self):
        return self.bytes(self.take("h")).decode()

    def array(self, element):
        return [element() for _ in range(self.take("i"))]


class Connection:
    """One connection to one broker; every call has a deadline of `timeout` seconds."""

    def __init__(self, host, port, timeout=10):
        self.socket = socket.create_connection((host, port), timeout)
        self.correlation = 0

    def call(self, key, version, body):
        self.correlation += 1
        request = struct.pack(">hhi", key, version, self.correlation) + text("strandline-compat") + body
        self.socket.sendall(struct.pack(">i", len(request)) + request)
        answer = Reader(self._exactly(struct.unpack(">i", self._exactly(4))[0]))
        assert answer.take("i") == self.correlation, "an answer to another request"
        return answer

    def _exactly(self, length):
        parts = []
        while length:
            part = self.socket.recv(min(length, 1 << 20))
            if not part:
                raise Refused("the broker closed the connection")
            parts.append(part)
            length -= len(part)
        return b"".join(parts)

    def close(self):
        self.socket.close()


class Cluster:
    """Asks whichever broker leads a partition, and looks for it again when it does not answer."""

    def __init__(self, bootstrap):
        self.bootstrap = [(host, int(port)) for host, port in (each.rsplit(":", 1) for each in bootstrap.split(","))]

    def leaders(self, topic):
        """The address of the leader of each partition: {partition: (host, port)}."""
        for address in self.bootstrap:
            try:
                connection = Connection(*address)
                answer = connection.call(3, 1, struct.pack(">i", 1) + text(topic))
                connection.close()
            except (OSError, Refused):
                continue
            brokers = {}
            for _ in range(answer.take("i")):
                node, host, port, _rack = answer.take("i"), answer.text(), answer.take("i"), answer.text()
                brokers[node] = (host, port)
            answer.take("i")
            leaders = {}
            for _ in range(answer.take("i")):
                error, _name, _internal = answer.take("h"), answer.text(), answer.take("b")
                if error:
                    raise Refused(f"metadata of {topic}: error {error}")
                for _ in range(answer.take("i")):
                    error, partition, leader = answer.take("hii")
                    answer.array(lambda: answer.take("i")), answer.array(lambda: answer.take("i"))
                    if not error and leader in brokers:
                        leaders[partition] = brokers[leader]
            return leaders
        raise Refused("no broker answers")

    def _each(self, topic, ask, seconds=30):
        """`ask(connection, partition)` of every partition, again while leaders move."""
        until = time.monotonic() + seconds
        while True:
            open_ones, found = {}, {}
            try:
                leaders = self.leaders(topic)
                for partition, address in sorted(leaders.items()):
                    if address not in open_ones:
                        open_ones[address] = Connection(*address)
                    found[partition] = ask(open_ones[address], partition)
                if found:
                    return found
            except (OSError, Refused) as error:
                if time.monotonic() > until:
                    raise Refused(str(error)) from error
            finally:
                for connection in open_ones.values():
                    connection.close()
            if time.monotonic() > until:
                raise Refused(f"{topic} has no leaders")
            time.sleep(0.1)

    def offsets(self, topic, timestamp):
        """{partition: offset} of ListOffsets: `EARLIEST`, `LATEST` or milliseconds since 1970 (-1: no such record)."""
        def ask(connection, partition):
            body = struct.pack(">ii", -1, 1) + text(topic) + struct.pack(">iiq", 1, partition, timestamp)
            answer = connection.call(2, 1, body)
            answer.take("i"), answer.text(), answer.take("i")
            _partition, error, _timestamp, offset = answer.take("ihqq")
            if error:
                raise Refused(f"ListOffsets: error {error}")
            return offset
        return self._each(topic, ask)

    def batches(self, topic):
        """The header of every batch in the topic, partition by partition, in offset order."""
        ends = self.offsets(topic, LATEST)

        def ask(connection, partition):
            found, offset = [], 0
            while offset < ends[partition]:
                body = struct.pack(">iiiibiii", -1, 500, 1, 8 << 20, 0, 0, -1, 1) + text(topic)
                body += struct.pack(">iiiqqi", 1, partition, -1, offset, -1, 8 << 20) + struct.pack(">i", 0)
                answer = connection.call(1, 10, body)
                answer.take("ihi"), answer.take("i"), answer.text(), answer.take("i")
                _partition, error, _high, _stable, _start = answer.take("ihqqq")
                answer.array(lambda: answer.take("qq"))
                if error:
                    raise Refused(f"Fetch: error {error}")
                here = list(headers(partition, answer.bytes(answer.take("i"))))
                if not here:
                    raise Refused("a fetch below the high watermark returned nothing")
                found += [batch for batch in here if batch.base_offset >= offset]
                offset = here[-1].last_offset + 1
            return found
        return [batch for batches in self._each(topic, ask).values() for batch in batches]


def headers(partition, data):
    """The batches that lie whole in `data`."""
    at = 0
    while at + HEADER.size <= len(data):
        base, length, _epoch, magic, _crc, attributes, last, _, _, producer, _, _, records = HEADER.unpack_from(data, at)
        if at + 12 + length > len(data):
            return
        assert magic == 2, f"format {magic}"
        yield Batch(partition, base, base + last, CODECS[attributes & 7], producer, records)
        at += 12 + length
