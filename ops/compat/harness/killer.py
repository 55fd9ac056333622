"""Kills a leader in the middle of what several clients produce at the same time, once for all of them."""
import threading
import time

from . import check
from .cluster import wait
from .driver import ClientFailed


class Killer:
    """For `parties` clients at once, which begin to produce together; when all of them have begun, one node dies, another one in
    each round. A client that failed before, or has no part in the round, says so by `absent`."""

    def __init__(self, cluster, parties, last=0):
        """`last`: the node that died last, 0 for none."""
        self.cluster, self.node, self.parties = cluster, last, parties
        self.change = threading.Condition()

    @staticmethod
    def load(quick):
        """Records, and records per second: long enough that no client is done before the slowest has begun."""
        return (16_000, 1_000) if quick else (30_000, 2_000)

    def begin(self):
        """A new round: the cluster is whole, the next node is the one to die."""
        self.cluster.heal()
        self.node = self.node % 3 + 1
        self.ready = self.halfway = 0
        self.killed = None
        self.missing = threading.local()

    def under(self, run, topic, count, rate, idempotent):
        """The client's answer to having produced `count` records while the node died."""
        self._reach("ready")
        answer = {}

        def produce():
            try:
                answer.update(run.driver.ask("produce", timeout=120, topic=topic, partitions=6, codec="none", tag="kill",
                                             count=count, rate=rate, idempotent=idempotent))
            except Exception as error:
                answer["raised"] = error
            answer["ended"] = time.monotonic()
        producing = threading.Thread(target=produce)
        producing.start()

        def begun():
            return not producing.is_alive() or sum(check.end_offsets(self.cluster, topic).values()) > 0
        try:
            wait(f"the first records of {topic}", begun, 60)
        finally:
            self._reach("halfway")
        producing.join()
        if "raised" in answer:
            raise answer["raised"]
        check.require(not answer["failed"], f"{answer['failed']} of {count} records failed: {answer.get('why')}")
        check.require(answer["ended"] > self.killed, "everything was produced before the leader died")
        return answer

    def _reach(self, place):
        """Waits until all parties are there; the last one to be half way kills."""
        setattr(self.missing, place, True)
        with self.change:
            setattr(self, place, getattr(self, place) + 1)
            if self.halfway == self.parties and self.killed is None:
                self.cluster.kill(self.node)
                self.killed = time.monotonic()
            self.change.notify_all()
            if not self.change.wait_for(lambda: getattr(self, place) >= self.parties, 120):
                raise ClientFailed("the other clients of this round did not come")

    def absent(self):
        """This thread's client takes no part (any more) in this round; nobody waits for it."""
        with self.change:
            for place in ["ready", "halfway"]:
                if not getattr(self.missing, place, False):
                    setattr(self, place, getattr(self, place) + 1)
            if self.halfway == self.parties and self.killed is None:
                self.cluster.kill(self.node)
                self.killed = time.monotonic()
            self.change.notify_all()
