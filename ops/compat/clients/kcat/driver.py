"""Driver of kcat: a process of it for each thing asked, and its output read."""
import json
import re
import subprocess
import sys
import threading
import time

BOOTSTRAP = sys.argv[-1]
STRATEGIES = {"classic": "range", "cooperative": "cooperative-sticky"}
MISSING = {"programs": "none"}
OWNED = re.compile(r"\[(\d+)\]")


class NotAvailable(Exception):
    """kcat has no such feature."""


def kcat(*words, **more):
    return subprocess.Popen(["kcat", "-b", BOOTSTRAP, *words], text=True, stderr=subprocess.PIPE, **more)


def version(_):
    out = subprocess.run(["kcat", "-V"], capture_output=True, text=True, check=True).stdout
    return {"version": re.search(r"Version (\S+)", out)[1] + f" (librdkafka {re.search('librdkafka ([0-9.]+)', out)[1]})"}


def produce(request):
    settings = ["-X", "acks=all", "-X", "linger.ms=5"]
    if request["idempotent"] is not None:
        settings += ["-X", f"enable.idempotence={str(request['idempotent']).lower()}"]
    if request["idempotent"] is False:
        settings += ["-X", "max.in.flight.requests.per.connection=1"]
    process = kcat("-P", "-t", request["topic"], "-K:", "-z", request["codec"], *settings, stdin=subprocess.PIPE)
    errors = []
    watching = threading.Thread(target=lambda: errors.extend(process.stderr), daemon=True)
    watching.start()
    began, rate = time.monotonic(), request.get("rate")
    for number in range(request["count"]):
        if rate and number % 20 == 0:
            process.stdin.flush()
            time.sleep(max(0.0, began + number / rate - time.monotonic()))
        process.stdin.write(f"k{number % 1000}:{request['tag']}-{number}\n")
    process.stdin.close()
    code = process.wait(90)
    watching.join()
    failed = [line for line in errors if "elivery failed" in line]
    return {"failed": len(failed) or (1 if code else 0), "why": (failed or errors or [""])[-1].strip()}


class Member:
    """`kcat -G`, which commits by itself every five seconds and when it ends."""

    def __init__(self, request):
        words = ["-X", "auto.offset.reset=earliest", "-X", "session.timeout.ms=10000",
                 "-X", "partition.assignment.strategy=" + STRATEGIES[request["protocol"]],
                 "-f", "%p %o %k %s\n", "-u"]
        if "limit" in request:
            words += ["-c", str(request["limit"])]
        self.process = kcat(*words, "-G", request["group"], request["topic"], stdout=subprocess.PIPE)
        self.assigned, self.read, self.file = [], 0, open(request["file"], "w")
        self.threads = [threading.Thread(target=work, daemon=True) for work in (self.rows, self.events)]
        for thread in self.threads:
            thread.start()

    def rows(self):
        for line in self.process.stdout:
            self.file.write(line)
            self.file.flush()
            self.read += 1

    def events(self):
        for line in self.process.stderr:
            sys.stderr.write(line)
            if "rebalanced" not in line:
                continue
            told = {int(n) for n in OWNED.findall(line.rsplit(": ", 1)[1])}
            if "incremental assignment" in line:
                self.assigned = sorted(told | set(self.assigned))
            elif "revoke" in line:
                self.assigned = [n for n in self.assigned if n not in told]
            else:
                self.assigned = sorted(told)


member = None


def join(request):
    global member
    if request["protocol"] == "consumer":
        raise NotAvailable("librdkafka 2.0 has no KIP-848")
    member = Member(request)
    return {}


def state(_):
    return {"assigned": member.assigned, "read": member.read, "failed": None}


def leave(_):
    if member.process.poll() is None:
        member.process.terminate()
    member.process.wait(30)
    for thread in member.threads:
        thread.join()
    return {"read": member.read}


def lookup(request):
    out = subprocess.run(["kcat", "-b", BOOTSTRAP, "-L", "-J", "-t", request["topic"]], capture_output=True, text=True,
                         check=True).stdout
    partitions = [p["partition"] for p in json.loads(out)["topics"][0]["partitions"]]
    asked = [word for p in partitions for word in ("-t", f"{request['topic']}:{p}:{request['timestamp']}")]
    out = subprocess.run(["kcat", "-b", BOOTSTRAP, "-Q", *asked], capture_output=True, text=True, check=True).stdout
    return {"offsets": {p: int(o) for p, o in re.findall(r"\[(\d+)\] offset (-?\d+)", out)}}


HANDLERS = {"version": version, "produce": produce, "join": join, "state": state, "leave": leave, "lookup": lookup}
for line in sys.stdin:
    request = json.loads(line)
    try:
        if request["do"] not in HANDLERS:
            raise NotAvailable(MISSING.get(request["do"], "no administration"))
        answer = {"ok": True, **HANDLERS[request["do"]](request)}
    except NotAvailable as error:
        answer = {"na": str(error)}
    except Exception as error:
        answer = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer), flush=True)
if member is not None and member.process.poll() is None:
    member.process.kill()
