"""Driver of Kafka's own command-line tools, each started as its shell script would: a JVM with the tool's class."""
import json
import re
import subprocess
import sys
import threading
import time

CLASSPATH, BOOTSTRAP = sys.argv[1], sys.argv[-1]
TOOLS = {
    "kafka-topics": "org.apache.kafka.tools.TopicCommand",
    "kafka-console-producer": "org.apache.kafka.tools.ConsoleProducer",
    "kafka-console-consumer": "org.apache.kafka.tools.consumer.ConsoleConsumer",
    "kafka-consumer-groups": "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
    "kafka-configs": "kafka.admin.ConfigCommand",
    "kafka-get-offsets": "org.apache.kafka.tools.GetOffsetShell",
    "kafka-producer-perf-test": "org.apache.kafka.tools.ProducerPerformance",
    "kafka-verifiable-producer": "org.apache.kafka.tools.VerifiableProducer",
    "kafka-verifiable-consumer": "org.apache.kafka.tools.VerifiableConsumer",
}
ASSIGNORS = {"classic": "RangeAssignor", "cooperative": "CooperativeStickyAssignor"}


def command(tool, *words):
    return ["java", "-Xmx256m", "-XX:+UseSerialGC", "-cp", CLASSPATH, TOOLS[tool], *map(str, words)]


def run(tool, *words):
    """What the tool printed; an error if it failed."""
    done = subprocess.run(command(tool, *words), capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise RuntimeError(f"{tool}: {done.returncode}: {(done.stderr + done.stdout).strip()[-400:]}")
    return done.stdout


def admin(tool, *words):
    return run(tool, "--bootstrap-server", BOOTSTRAP, *words)


def version(_):
    return {"version": re.search(r"kafka-tools-([0-9.]+)\.jar", " ".join(jars()))[1]}


def jars():
    from pathlib import Path
    return [jar.name for jar in Path(CLASSPATH.split(":")[1].rstrip("*")).iterdir()]


def create(request):
    topic = request["topic"]
    admin("kafka-topics", "--create", "--topic", topic, "--partitions", request["partitions"],
          "--replication-factor", request["replicas"])
    told = admin("kafka-topics", "--describe", "--topic", topic)
    if len(re.findall(r"Leader: \d", told)) != request["partitions"]:
        raise RuntimeError(f"kafka-topics describes {told}")
    return {}


def produce(request):
    settings = ["acks=all", "linger.ms=5", "delivery.timeout.ms=90000", "request.timeout.ms=10000", "retries=1000000"]
    if request["idempotent"] is not None:
        settings.append(f"enable.idempotence={str(request['idempotent']).lower()}")
    if request["idempotent"] is False:
        settings.append("max.in.flight.requests.per.connection=1")
    words = [word for setting in settings for word in ("--producer-property", setting)]
    process = subprocess.Popen(command(
        "kafka-console-producer", "--bootstrap-server", BOOTSTRAP, "--topic", request["topic"], "--compression-codec",
        request["codec"], "--property", "parse.key=true", "--property", "key.separator=:", *words),
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
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
    code = process.wait(100)
    watching.join()
    sys.stderr.writelines(errors)
    failed = [line for line in errors if "Error when sending" in line]
    return {"failed": len(failed) or (1 if code else 0), "why": (failed or errors or [""])[-1].strip()}


class Member:
    """kafka-verifiable-consumer, which prints what it reads and owns as JSON. By itself it commits behind every poll, and
    does not again when that fails in a rebalance; so the consumer in it commits, except where a limit counts."""

    def __init__(self, request):
        words = ["--bootstrap-server", BOOTSTRAP, "--topic", request["topic"], "--group-id", request["group"],
                 "--reset-policy", "earliest", "--verbose"]
        words += ["--max-messages", request["limit"]] if "limit" in request else ["--enable-autocommit"]
        if request["protocol"] == "consumer":
            words += ["--group-protocol", "consumer"]
        else:
            assignor = "org.apache.kafka.clients.consumer." + ASSIGNORS[request["protocol"]]
            words += ["--session-timeout", 10000, "--assignment-strategy", assignor]
        self.process = subprocess.Popen(command("kafka-verifiable-consumer", *words), stdout=subprocess.PIPE, stderr=sys.stderr,
                                        text=True)
        self.assigned, self.read, self.file = set(), 0, open(request["file"], "w")
        self.thread = threading.Thread(target=self.events, daemon=True)
        self.thread.start()

    def events(self):
        for line in self.process.stdout:
            event = json.loads(line) if line.startswith("{") else {}
            partitions = [each["partition"] for each in event.get("partitions", []) if "partition" in each]
            match event.get("name"):
                case "record_data":
                    self.file.write(f"{event['partition']} {event['offset']} {event['key']} {event['value']}\n")
                    self.read += 1
                case "records_consumed":
                    self.file.flush()
                case "partitions_assigned":
                    self.assigned.update(partitions)
                case "partitions_revoked":
                    self.assigned.difference_update(partitions)
        self.file.flush()


member = None


def join(request):
    global member
    member = Member(request)
    return {}


def state(_):
    ended = member.process.poll()
    return {"assigned": sorted(member.assigned), "read": member.read, "failed": f"ended with {ended}" if ended else None}


def leave(_):
    if member.process.poll() is None:
        member.process.terminate()
    member.process.wait(60)
    member.thread.join()
    return {"read": member.read}


def lookup(request):
    told = admin("kafka-get-offsets", "--topic", request["topic"], "--time", request["timestamp"])
    return {"offsets": {p: int(o or -1) for p, o in re.findall(r":(\d+):(-?\d*)$", told, re.MULTILINE)}}


def configs(request):
    entity = ["--entity-type", "topics", "--entity-name", request["topic"]]
    admin("kafka-configs", "--alter", *entity, "--add-config", f"{request['key']}={request['value']}")
    told = admin("kafka-configs", "--describe", *entity)
    return {"value": re.search(re.escape(request["key"]) + r"=(\S+)", told)[1]}


def groups(request):
    group = ["--group", request["group"]]
    listed = admin("kafka-consumer-groups", "--list").split()
    state = admin("kafka-consumer-groups", "--describe", "--state", *group)
    offsets = admin("kafka-consumer-groups", "--describe", *group)
    rows = re.findall(rf"^{request['group']}\s+{request['topic']}\s+(\d+)\s+(\d+)\s", offsets, re.MULTILINE)
    return {"listed": request["group"] in listed, "state": re.search(r"(?i)\b(empty|stable|dead)\b", state)[1],
            "committed": {partition: int(offset) for partition, offset in rows}}


def programs(request):
    """kafka-producer-perf-test and kafka-verifiable-producer write, kafka-console-consumer reads it all."""
    topic, count = request["topic"], request["count"]
    run("kafka-producer-perf-test", "--topic", topic, "--num-records", count, "--record-size", 100, "--throughput", -1,
        "--producer-props", f"bootstrap.servers={BOOTSTRAP}", "acks=all")
    told = run("kafka-verifiable-producer", "--bootstrap-server", BOOTSTRAP, "--topic", topic, "--max-messages", count,
               "--throughput", -1, "--acks", -1)
    acknowledged = told.count('"producer_send_success"')
    read = run("kafka-console-consumer", "--bootstrap-server", BOOTSTRAP, "--topic", topic, "--from-beginning",
               "--max-messages", count + acknowledged, "--timeout-ms", 30000)
    return {"produced": count + acknowledged, "read": len(read.splitlines())}


def delete(request):
    admin("kafka-consumer-groups", "--delete", "--group", request["group"])
    admin("kafka-topics", "--delete", "--topic", request["topic"])
    return {}


HANDLERS = {f.__name__: f for f in (version, create, produce, join, state, leave, lookup, configs, groups, programs, delete)}
for line in sys.stdin:
    request = json.loads(line)
    try:
        answer = {"ok": True, **HANDLERS[request["do"]](request)}
    except Exception as error:
        answer = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer), flush=True)
if member is not None and member.process.poll() is None:
    member.process.kill()
