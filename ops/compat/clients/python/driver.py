"""What the drivers in Python share: the loop of requests (`ops/compat/README.md` has the protocol) and a member's thread."""
import json
import sys
import threading
import time


class NotAvailable(Exception):
    """The client has no such feature."""


def key(number):
    return b"k%d" % (number % 1000)


def value(tag, number):
    return f"{tag}-{number}".encode()


MISSING = {"programs": "none"}


class Pace:
    """Holds a producer to `rate` records per second, if there is one, and sees how long the slowest acknowledgement took."""

    def __init__(self, rate):
        self.rate, self.began, self.longest = rate, time.monotonic(), 0.0
        self.failed, self.why = 0, None

    def due(self, sent):
        """Seconds to wait until record number `sent` may go."""
        return max(0.0, self.began + sent / self.rate - time.monotonic()) if self.rate else 0.0

    def sent(self):
        """A record is given to the client; returns what to call when it was acknowledged, with the error if it was not."""
        at = time.monotonic()
        return lambda error=None: self.acknowledged(at, error)

    def acknowledged(self, at, error):
        self.longest = max(self.longest, time.monotonic() - at)
        if error is not None:
            self.failed, self.why = self.failed + 1, str(error)

    def answer(self):
        return {"failed": self.failed, "why": self.why, "stall_ms": round(self.longest * 1000)}


class Member:
    """Reads in a thread of its own until it is told to leave. `limit`: so many records are taken and committed, no more.

    What a client has to give: `open()`, `poll()` → [(partition, offset, key, value)], `owned()` → partitions,
    `commit({partition: next offset})`, `close()`; and it calls `give_up(partitions)` before they are someone else's.
    """

    def __init__(self, request):
        self.topic, self.group, self.protocol = request["topic"], request["group"], request["protocol"]
        self.limit = request.get("limit")
        self.file = open(request["file"], "w")
        self.read, self.next, self.assigned, self.failed = 0, {}, [], None
        self.leaving = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self):
        try:
            self.open()
            while not self.leaving.is_set():
                rows = self.poll()
                if self.limit is not None:
                    rows = rows[:self.limit - self.read]
                for partition, offset, its_key, its_value in rows:
                    self.file.write(f"{partition} {offset} {its_key.decode()} {its_value.decode()}\n")
                    self.next[partition] = offset + 1
                self.file.flush()
                self.read += len(rows)
                self.assigned = self.owned()
            self.give_up(list(self.next))
            self.close()
        except Exception as error:
            self.failed = f"{type(error).__name__}: {error}"
            print(self.failed, file=sys.stderr)

    def take(self, partitions):
        """{partition: next offset} of what was read and is not committed, for the last time."""
        return {p: self.next.pop(p) for p in partitions if p in self.next}

    def give_up(self, partitions):
        done = self.take(partitions)
        if done:
            self.commit(done)


class Driver:
    member_class = None

    def __init__(self):
        self.bootstrap = sys.argv[-1]
        self.member = None

    def join(self, request):
        self.member = self.member_class(request)
        self.member.bootstrap = self.bootstrap
        self.member.thread.start()
        return {}

    def state(self, _request):
        return {"assigned": sorted(self.member.assigned), "read": self.member.read, "failed": self.member.failed}

    def leave(self, _request):
        self.member.leaving.set()
        self.member.thread.join(60)
        if self.member.failed or self.member.thread.is_alive():
            raise RuntimeError(self.member.failed or "the member does not end")
        return {"read": self.member.read}

    def serve(self):
        for line in sys.stdin:
            request = json.loads(line)
            try:
                handler = getattr(self, request["do"], None)
                if handler is None:
                    raise NotAvailable(MISSING.get(request["do"], "no administration"))
                answer = {"ok": True, **handler(request)}
            except NotAvailable as error:
                answer = {"na": str(error)}
            except Exception as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
            print(json.dumps(answer), flush=True)
