"""The parts of `ops/compat/strain`: a well-behaved client, and connections that are not. Each is a process of its own."""
import multiprocessing
import os
import random
import resource
import selectors
import socket
import struct
import time

from .wire import Cluster, Connection, Reader, text

# Linux gives a loopback address to every connection that asks for one of 127/8: the limit for each address is not in play.
SOURCES = [f"127.0.1.{n}" for n in range(1, 21)]
API_VERSIONS = struct.pack(">hhi", 18, 0, 1) + text("idle")


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 & -(crc & 1))
    return crc ^ 0xFFFFFFFF


def batch(value):
    """A batch of one record of format 2, with no producer id."""
    record = struct.pack(">bbbbb", 0, 0, 0, 1, 0)[:3] + b"\x01" + bytes([len(value) << 1 & 0x7F | 0x80, len(value) >> 6]) + value
    record += b"\x00"
    record = bytes([len(record) << 1 & 0x7F | 0x80, len(record) >> 6]) + record
    now = int(time.time() * 1000)
    body = struct.pack(">hiqqqhii", 0, 0, now, now, -1, -1, -1, 1) + record
    return struct.pack(">qiibI", 0, len(body) + 9, -1, 2, crc32c(body)) + body


def open_connections(address, count):
    """`count` connections that have said nothing yet."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    return [socket.create_connection(address, 10, (SOURCES[n % len(SOURCES)], 0)) for n in range(count)]


def greet(connections):
    """Each asks for ApiVersions, as a client does that has just come. Returns how many were answered."""
    answered = 0
    for connection in connections:
        connection.sendall(struct.pack(">i", len(API_VERSIONS)) + API_VERSIONS)
    for connection in connections:
        connection.settimeout(10)
        try:
            length = connection.recv(4, socket.MSG_WAITALL)
            answered += len(connection.recv(struct.unpack(">i", length)[0], socket.MSG_WAITALL)) > 0
        except (OSError, struct.error):
            pass
    return answered


def produce_latencies(bootstrap, topic, seconds, rate):
    """Milliseconds of each of `rate` requests a second: one record of 100 bytes, acks=all, one after the other."""
    data, latencies = batch(b"x" * 100), []
    connections = {p: Connection(*address) for p, address in Cluster(bootstrap).leaders(topic).items()}
    began = time.monotonic()
    for n in range(seconds * rate):
        time.sleep(max(0.0, began + n / rate - time.monotonic()))
        partition = n % len(connections)
        body = struct.pack(">hhii", -1, -1, 10_000, 1) + text(topic) + struct.pack(">iii", 1, partition, len(data)) + data
        asked = time.perf_counter()
        answer: Reader = connections[partition].call(0, 3, body)
        latencies.append((time.perf_counter() - asked) * 1000)
        answer.take("i"), answer.text(), answer.take("i")
        _partition, error = answer.take("ih")
        if error:
            raise RuntimeError(f"Produce: error {error}")
    for connection in connections.values():
        connection.close()
    return sorted(latencies)


def loris(address, count, ready, stop):
    """`count` connections that begin a request and send a byte of it each second; one that is closed comes again."""
    connections = dict.fromkeys(open_connections(address, count), 0)
    closed = 0
    ready.put(("loris", count))
    frame = struct.pack(">i", 4000) + b"\0" * 4000
    selector = selectors.DefaultSelector()
    for connection in connections:
        connection.setblocking(False)
        selector.register(connection, selectors.EVENT_READ)
    while not stop.is_set():
        until = time.monotonic() + 1
        for connection in list(connections):
            try:
                at = connections[connection]
                connection.send(frame[at:at + 1])
                connections[connection] += 1
            except OSError:
                pass
        while (left := until - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                selector.unregister(key.fileobj)
                key.fileobj.close()
                del connections[key.fileobj]
                closed += 1
                again = open_connections(address, 1)[0]
                again.setblocking(False)
                connections[again] = 0
                selector.register(again, selectors.EVENT_READ)
    ready.put(("loris, closed by the broker", closed))


def garbage(address, rate, seed, ready, stop):
    """`rate` frames a second of random bytes, with lengths true, too long, negative and absurd."""
    draw, sent, connection = random.Random(seed), 0, None
    ready.put(("garbage", rate))
    while not stop.is_set():
        began = time.monotonic()
        body = draw.randbytes(draw.choice([1, 8, 60, 1000, 60_000]))
        length = draw.choice([len(body), len(body) + 1, -1, 2**31 - 1, 0, 1 << 20])
        try:
            if connection is None:
                connection = socket.create_connection(address, 5, (draw.choice(SOURCES), 0))
                connection.settimeout(0.05)
                if draw.random() < 0.5:
                    connection.sendall(struct.pack(">i", len(API_VERSIONS)) + API_VERSIONS)
            # Half of it looks like a request of a kind that exists.
            if draw.random() < 0.5:
                body = struct.pack(">hhi", draw.randrange(0, 80), draw.randrange(0, 14), sent) + body
            connection.sendall(struct.pack(">i", length) + body)
            sent += 1
            if not connection.recv(65536):
                raise OSError("closed")
        except TimeoutError:
            if length != len(body):
                connection.close()
                connection = None
        except OSError:
            if connection is not None:
                connection.close()
            connection = None
        time.sleep(max(0.0, began + 1 / rate - time.monotonic()))
    ready.put(("garbage frames sent", sent))


class Attack:
    """Runs attackers in processes of their own while it is entered."""

    def __init__(self, *attackers):
        self.context = multiprocessing.get_context("fork")
        self.stop, self.ready, self.told = self.context.Event(), self.context.Queue(), {}
        self.processes = [self.context.Process(target=target, args=(*arguments, self.ready, self.stop), daemon=True)
                          for target, *arguments in attackers]

    def __enter__(self):
        for process in self.processes:
            process.start()
        for _ in self.processes:
            self.ready.get(timeout=120)
        return self

    def __exit__(self, *_):
        self.stop.set()
        for _ in self.processes:
            name, count = self.ready.get(timeout=60)
            self.told[name] = self.told.get(name, 0) + count
        for process in self.processes:
            process.join(30)


def resident(pid):
    """MiB."""
    with open(f"/proc/{pid}/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)
