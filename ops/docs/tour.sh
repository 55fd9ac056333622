#!/usr/bin/env bash
# The five-minute tour of the README, as a script that checks what it shows. CI runs it against the cluster that
# `cargo run --release -- dev` starts; run it yourself from the directory that holds strandline-data/, with
# `strandline` in the PATH. A test (ops/xtask/tests/readme_tour.rs) keeps the README's commands the same as these.
set -euo pipefail

say() { printf '\n\033[1m==> %s\033[0m\n' "$*"; }
same() { # what, expected, found
    if [ "$2" != "$3" ]; then
        echo "tour: $1: expected $2, found $3" >&2
        exit 1
    fi
    echo "$1: $3"
}
eventually() { # seconds, command…
    local until=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        if [ "$SECONDS" -ge "$until" ]; then
            echo "tour: not within the time allowed: $*" >&2
            exit 1
        fi
        sleep 0.2
    done
}

say "the cluster"
strandline cluster status

say "a topic: 6 partitions, three copies of each"
strandline topic create orders --partitions 6 --replication 3

say "100 000 records, with keys"
seq 1 100000 | awk '{ print "customer-" $1 % 100 ":order " $1 }' > orders.txt
strandline produce orders --key-separator ':' < orders.txt

say "read them back"
strandline consume orders --from earliest --max-messages 3 --format '%p %o %k %v'
lines=$(strandline consume orders --from earliest --exit-at-end | wc -l)
same "records" 100000 "$lines"

say "kill a node while records arrive: nothing acknowledged is lost, and the producer goes on by itself"
for part in 1 2 3 4 5; do cat orders.txt; sleep 1; done | strandline produce orders --key-separator ':' &
producer=$!
sleep 1.5
kill -9 $(cat strandline-data/node-2/pid)
strandline topic describe orders
wait "$producer"
lines=$(strandline consume orders --from earliest --exit-at-end | wc -l)
same "records" 600000 "$lines"
strandline consume orders --from earliest --exit-at-end --format '%k:%v' | sort | uniq -c | awk '$1 != 6 { wrong++ } END { exit wrong > 0 }' ||
    { echo "tour: some record is not there exactly six times" >&2; exit 1; }

say "order is kept within each key"
strandline consume orders --from earliest --exit-at-end --format '%k %v' | awk '
    { n = $3; if (n <= last[$1] && again[$1]++ >= 5) { print "out of order: " $0; wrong = 1 } last[$1] = n }
    END { exit wrong }'

say "the node comes back after three seconds"
is_whole() { strandline cluster status --json | grep -q '"under_replicated":0'; }
eventually 60 is_whole
strandline cluster status

say "a consumer group remembers how far it has read"
strandline consume orders --group billing --from earliest --max-messages 50000 > first.txt
strandline group describe billing
strandline consume orders --group billing --exit-at-end > rest.txt
same "records read by the group" 600000 "$(cat first.txt rest.txt | wc -l)"

say "read everything again"
strandline group reset billing --topic orders --to earliest
lines=$(strandline consume orders --group billing --exit-at-end | wc -l)
same "records" 600000 "$lines"
strandline group delete billing

say "what goes wrong is said, with an exit code that means it"
code=0
strandline topic describe no-such-topic || code=$?
same "exit code for an unknown topic" 3 "$code"
code=0
strandline topic create orders || code=$?
same "exit code for a topic that exists" 6 "$code"

say "how fast is it here?"
strandline bench produce --duration 3s --data-dir strandline-data
strandline bench latency --duration 3s

strandline topic delete orders
say "the tour is done"
