"""Where the gateways keep what they ingest, and how that fails now and then."""
import os
import pwd
import signal
import socket
import sqlite3
import subprocess
import threading
import time
from pathlib import Path


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Sqlite:
    """One file for each gateway. It fails while somebody else holds the file's lock for longer than the gateway waits."""

    name = "sqlite"

    def __init__(self, directory):
        self.directory = Path(directory)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def url(self, gateway):
        return f"sqlite:{self.directory / f'gateway-{gateway}.sqlite'}"

    def fail(self, gateway, seconds):
        """Returns what is done; it takes `seconds` in the background."""
        path = self.directory / f"gateway-{gateway}.sqlite"

        def hold():
            lock = sqlite3.connect(path, timeout=30, isolation_level=None)
            lock.execute("BEGIN IMMEDIATE")
            time.sleep(seconds)
            lock.execute("ROLLBACK")
            lock.close()

        threading.Thread(target=hold, daemon=True).start()
        return f"the file of gateway {gateway} is locked for {seconds} s"


class Postgres:
    """One server for all of them. It fails when its connections are cut, or when it crashes and comes back."""

    name = "postgres"

    def __init__(self, directory):
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
        if not found:
            raise SystemExit("PostgreSQL's programs are missing: apt-get install postgresql")
        self.bin, self.directory, self.port, self.turn = found[-1].parent, Path(directory) / "postgres", free_port(), 0

    def _user(self):
        # The server refuses to run as root.
        return {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}

    def _start(self):
        self.server = subprocess.Popen(
            [self.bin / "postgres", "-h", "127.0.0.1", "-p", str(self.port), "-c", "unix_socket_directories=", "-D", self.directory / "data"],
            stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL, cwd=self.directory, **self._user())

    def __enter__(self):
        self.directory.mkdir()
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres")
            os.chown(self.directory, user.pw_uid, user.pw_gid)
        self.log = open(self.directory.parent / "postgres.txt", "w")
        subprocess.run([self.bin / "initdb", "--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C", "--username", "strandline",
                        "-D", self.directory / "data"], check=True, stdout=self.log, stderr=self.log, cwd=self.directory, **self._user())
        self._start()
        until = time.monotonic() + 60
        while self._sql("SELECT 1").returncode:
            if time.monotonic() > until:
                raise TimeoutError("PostgreSQL did not start within 60 s")
            time.sleep(0.1)
        return self

    def __exit__(self, *_):
        self.server.send_signal(signal.SIGINT)
        try:
            self.server.wait(30)
        except subprocess.TimeoutExpired:
            self.server.kill()
            self.server.wait()

    def _sql(self, statement):
        return subprocess.run([self.bin / "psql", "-h", "127.0.0.1", "-p", str(self.port), "-U", "strandline", "-d", "postgres", "-Atc", statement],
                              capture_output=True, text=True)

    def url(self, _gateway):
        return f"postgres://strandline@127.0.0.1:{self.port}/postgres"

    def fail(self, _gateway, seconds):
        self.turn += 1
        if self.turn % 2:
            cut = self._sql("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()")
            return f"PostgreSQL cuts {cut.stdout.strip()} connections"
        # Whatever is not on disk is gone: the server comes back by its write-ahead log.
        self.server.send_signal(signal.SIGQUIT)
        self.server.wait()

        def back():
            time.sleep(seconds)
            self._start()

        threading.Thread(target=back, daemon=True).start()
        return f"PostgreSQL ends at once, and is back after {seconds} s"
