"""The events of a run, and what must come of them. Everything follows from a seed and a number, and nothing here knows how the
pipeline works: the sums are sums over whole hundredths."""
from collections import defaultdict
from decimal import Decimal

CLIENTS = [f"client-{n:02}" for n in range(50)]
METRICS = ["purchase", "refund", "view", "click", "signup", "login", "payment", "transfer"]
# 2026-01-01T00:00:00Z, and thirty days of milliseconds.
EPOCH_MS = 1_767_225_600_000
SPAN_MS = 30 * 86_400_000
MASK = (1 << 64) - 1
# Of a hundred events one has an amount that nobody can read.
REJECTED_IN = 100


def mix(number):
    """splitmix64."""
    number = (number + 0x9E3779B97F4A7C15) & MASK
    number = ((number ^ (number >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    number = ((number ^ (number >> 27)) * 0x94D049BB133111EB) & MASK
    return number ^ (number >> 31)


class Events:
    def __init__(self, seed):
        self.salt = mix(seed)

    def canonical(self, number):
        """(client, metric, amount in hundredths, time in ms) as places in the lists above."""
        drawn = mix(self.salt ^ number)
        again = mix(drawn)
        return drawn % len(CLIENTS), (drawn >> 16) % len(METRICS), again % 2_000_000 - 500_000, EPOCH_MS + (again >> 24) % SPAN_MS

    def is_rejected(self, number):
        return mix(self.salt ^ number ^ 0xBAD) % REJECTED_IN == 0

    def text(self, number, form):
        """The event as JSON; `form` chooses names, nesting and spelling, and not what event it is."""
        if self.is_rejected(number):
            return f'{{"clientId":"{CLIENTS[number % len(CLIENTS)]}","count":"many","number":{number}}}'
        client, metric, hundredths, ms = self.canonical(number)
        client, metric, amount = CLIENTS[client], METRICS[metric], spelled(hundredths)
        match form % 4:
            case 0:
                return f'{{"source":"{client}","payload":{{"metric":"{metric}","amount":"{amount}","timestamp":"{iso(ms)}"}}}}'
            case 1:
                return f'{{"client_id":"{client}","event_type":"{metric}","value":{amount},"date":"{iso(ms)}"}}'
            case 2:
                return f'{{"origin":"{client}","name":"{metric}","price":"{amount}","ts":{ms}}}'
            case _:
                return f'{{"payload":{{"type":"{metric}","total":{amount},"createdAt":{ms}}},"clientId":"{client}"}}'


def spelled(hundredths):
    sign, rest = ("-", -hundredths) if hundredths < 0 else ("", hundredths)
    whole, part = divmod(rest, 100)
    return f"{sign}{whole}.{part:02}" if part else f"{sign}{whole}"


def iso(ms):
    """Of January 2026."""
    days, rest = divmod(ms - EPOCH_MS, 86_400_000)
    hours, rest = divmod(rest, 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    seconds, rest = divmod(rest, 1_000)
    return f"2026-01-{days + 1:02}T{hours:02}:{minutes:02}:{seconds:02}.{rest:03}Z"


class Truth:
    """What the aggregates must be: each distinct event counts once."""

    def __init__(self, events, count):
        self.rejected = sum(events.is_rejected(number) for number in range(count))
        self.distinct = {events.canonical(number) for number in range(count) if not events.is_rejected(number)}

    def aggregates(self, begin_ms=EPOCH_MS, end_ms=EPOCH_MS + SPAN_MS):
        """(client, metric) → count, sum, min, max of events in this time, both ends included."""
        found = defaultdict(lambda: [0, 0, None, None])
        for client, metric, hundredths, ms in self.distinct:
            if begin_ms <= ms <= end_ms:
                row = found[(CLIENTS[client], METRICS[metric])]
                row[0] += 1
                row[1] += hundredths
                row[2] = hundredths if row[2] is None else min(row[2], hundredths)
                row[3] = hundredths if row[3] is None else max(row[3], hundredths)
        return {key: (count, *(Decimal(value) / 100 for value in rest)) for key, (count, *rest) in found.items()}
