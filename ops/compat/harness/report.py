"""The matrix as a page. `results.json` holds the cells, so that a run of some clients leaves the others' as they were."""
import json
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent
PAGE, CELLS = FOLDER / "RESULTS.md", FOLDER / "results.json"

HEAD = """# Kafka clients against three nodes

Written by `ops/compat/run` and `ops/compat/failover`; do not edit. Every cell is one step of one client, unmodified, against
`strandline dev` with three nodes; what must come of each step is in `README.md` and `harness/steps.py`.

"""
LEGEND = """**ok** with the seconds it took and what there is to say; **n/a:** the client has no such feature, and which; **FAIL** is
explained below the table. "Stall" is the longest that a record waited for its acknowledgement while the node died. "Written again" are
records that a producer without idempotence sent twice because it could not know; "read again" are records that a group read
twice because partitions moved.

"""


def load():
    return json.loads(CELLS.read_text()) if CELLS.exists() else {"clients": {}, "failover": None}


def save(results):
    CELLS.write_text(json.dumps(results, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    PAGE.write_text(page(results))


def cell(found):
    if found is None:
        return ""
    kind, seconds, note = found["kind"], found["seconds"], found["note"]
    if kind == "na":
        return f"n/a: {note}"
    if kind == "fail":
        return "**FAIL**"
    return f"ok {seconds:.1f} s" + (f", {note}" if note else "")


def page(results):
    from .clients import CLIENTS
    from .steps import STEPS
    names = [client.name for client in CLIENTS if client.name in results["clients"]]
    clients = results["clients"]
    text = HEAD
    if results.get("when"):
        text += f"Last run {results['when']}.\n\n"
    text += LEGEND
    text += "| step | " + " | ".join(names) + " |\n"
    text += "|---" * (len(names) + 1) + "|\n"
    text += "| version | " + " | ".join(clients[name]["version"] for name in names) + " |\n"
    text += "| records of each codec | " + " | ".join(f"{clients[name]['count']:,}".replace(",", " ") for name in names) + " |\n"
    for step, title in STEPS:
        text += f"| {title} | " + " | ".join(cell(clients[name]["cells"].get(step)) for name in names) + " |\n"
    failed = [(name, title, clients[name]["cells"][step]["note"]) for name in names for step, title in STEPS
              if clients[name]["cells"].get(step, {}).get("kind") == "fail"]
    if failed:
        text += "\n## What failed\n\n"
        text += "".join(f"* {name}, {title}: {note}\n" for name, title, note in failed)
    if results.get("failover"):
        text += "\n" + failover(results["failover"])
    return text


def failover(found):
    text = "## A leader dies under idempotent producers\n\n"
    text += ("`ops/compat/failover`: both at once, 2 000 records a second, three times with another node killed; everything is read "
             "back and compared with what was acknowledged.\n\n")
    text += "| producer | acknowledged | lost | twice | longest stall |\n|---|---|---|---|---|\n"
    for each in found:
        text += (f"| {each['client']} {each['version']} | {each['count']:,} | {each['lost']} | {each['twice']} | "
                 f"{each['stall_ms'] / 1000:.2f} s |\n").replace(",", " ")
    return text
