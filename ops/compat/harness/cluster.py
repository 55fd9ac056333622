"""A cluster of three nodes under test: `strandline dev` in a directory of its own, on ports of its own."""
import json
import os
import signal
import subprocess
import time
from pathlib import Path


class Cluster:
    """Starts when entered, is gone when left. `kill` takes a node by SIGKILL; `dev` starts it again after 3 s."""

    def __init__(self, binary, directory, port=19092, flags=()):
        self.binary, self.directory, self.flags = str(binary), Path(directory), list(flags)
        self.kafka_port, self.grpc_port, self.peer_port, self.http_port = port, port + 100, port + 200, port + 300
        self.bootstrap = ",".join(f"127.0.0.1:{port + n}" for n in range(3))

    def __enter__(self):
        self.directory.mkdir(parents=True)
        command = [self.binary, "dev", "--data-dir", str(self.directory / "data"), "--kafka-port", str(self.kafka_port),
                   "--grpc-port", str(self.grpc_port), "--peer-port", str(self.peer_port),
                   "--http-port", str(self.http_port)]
        self.log = open(self.directory / "dev.txt", "w+")
        self.dev = subprocess.Popen(command + (["--", *self.flags] if self.flags else []), stdout=self.log,
                                    stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        wait("the cluster to be ready", self._ready, 60)
        return self

    def __exit__(self, *_):
        if self.dev.poll() is None:
            self.dev.send_signal(signal.SIGTERM)
            try:
                self.dev.wait(30)
            except subprocess.TimeoutExpired:
                self.dev.kill()  # the nodes end with it
                self.dev.wait()

    def _ready(self):
        if self.dev.poll() is not None:
            raise RuntimeError(f"the cluster did not start: {(self.directory / 'dev.txt').read_text()}")
        return "\nready" in (self.directory / "dev.txt").read_text()

    def pid(self, node):
        return int((self.directory / "data" / f"node-{node}" / "pid").read_text())

    def kill(self, node):
        os.kill(self.pid(node), signal.SIGKILL)

    def cli(self, *words):
        """What the project's own command line prints: a look at the same data past Kafka's protocol."""
        bootstrap = ",".join(f"127.0.0.1:{self.grpc_port + n}" for n in range(3))
        done = subprocess.run([self.binary, "--bootstrap", bootstrap, *words], capture_output=True, text=True, timeout=180)
        if done.returncode:
            raise RuntimeError(f"strandline {' '.join(words)}: {done.stderr.strip()}")
        return done.stdout

    def describe(self, topic):
        return json.loads(self.cli("topic", "describe", topic, "--json"))

    def leader(self, topic, partition=0):
        return self.describe(topic)["partitions"][partition]["leader"]

    def heal(self, seconds=60):
        """Waits until all three nodes serve and every replica is in sync."""
        def whole():
            try:
                status = json.loads(self.cli("cluster", "status", "--json"))
            except RuntimeError:
                return False
            up = [broker for broker in status["brokers"] if not broker["fenced"]]
            return len(up) == 3 and not status["under_replicated"] and not status["leaderless"]
        wait("the cluster to be whole again", whole, seconds)


def wait(what, condition, seconds, every=0.05):
    """Returns what `condition` returned when it was true; TimeoutError after `seconds`."""
    until = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > until:
            raise TimeoutError(f"waited {seconds} s for {what}")
        time.sleep(every)
