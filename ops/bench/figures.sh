#!/usr/bin/env bash
# Takes the figures of RESULTS.md that are not a comparison: start, size, idle CPU, many partitions, a node that was away, a large
# text under SIGKILL. Against release builds in target/release (or BIN), in a directory of its own that it removes (WORK, 20 GB free).
# Run it on a quiet machine: `cargo build --release && ops/bench/figures.sh [start many big away text http]` (all without arguments,
# about ten minutes).
set -euo pipefail
cd "$(dirname "$0")/../.."
bin=${BIN:-$PWD/target/release}
work=$(mktemp -d "${WORK:-$PWD/target}/figures-XXXXXX")
grpc=${GRPC_PORT:-27070}
peer=${PEER_PORT:-27170}
kafka=${KAFKA_PORT:-27270}
http=${HTTP_PORT:-28080}
dev=
node=
clean_up() {
    [ -z "$node" ] || kill -KILL "$node" 2>/dev/null || true
    [ -z "$dev" ] || { kill -INT "$dev" 2>/dev/null && wait "$dev" || true; }
    rm -rf "$work"
}
trap clean_up EXIT
export STRANDLINE_BOOTSTRAP="127.0.0.1:$grpc"
strandline() { "$bin/strandline" "$@"; }
now_ms() { date +%s%3N; }
say() { printf '%-58s %s\n' "$1" "$2"; }

start_dev() { # directory, flags…
    local dir=$1
    shift
    "$bin/strandline" dev --data-dir "$dir" --grpc-port "$grpc" --peer-port "$peer" \
        --kafka-port "$kafka" --http-port "$http" "$@" > "$work/dev.txt" 2>&1 &
    dev=$!
    until grep -q '^ready' "$work/dev.txt"; do
        kill -0 "$dev" 2>/dev/null || { cat "$work/dev.txt" >&2; exit 1; }
        sleep 0.01
    done
}
stop_dev() { kill -INT "$dev"; wait "$dev" || true; dev=; rm -rf "$1"; }
memory() { # VmRSS or VmHWM, directory
    local id
    for id in 1 2 3; do awk -v key="$1:" '$1 == key { printf "%d ", $2 / 1024 }' "/proc/$(cat "$2/node-$id/pid")/status"; done
}
ticks() { awk '{ print $14 + $15 }' "/proc/$(cat "$1/node-$2/pid")/stat"; }
idle_cpu() { # directory; percent of a core of each node over ten seconds
    local id before=()
    for id in 1 2 3; do before[id]=$(ticks "$1" "$id"); done
    sleep 10
    for id in 1 2 3; do awk -v a="${before[id]}" -v b="$(ticks "$1" "$id")" 'BEGIN { printf "%.1f ", (b - a) / 10 }'; done
}
is_whole() { strandline cluster status --json | grep -q '"under_replicated":0'; }

figures_start() {
    for run in 1 2 3; do
        start_dev "$work/alone" --nodes 1
        say "one fresh node, until it serves ($run)" "$(grep '^ready' "$work/dev.txt" | cut -d: -f1)"
        stop_dev "$work/alone"
        start_dev "$work/three"
        say "three fresh nodes, until they serve ($run)" "$(grep '^ready' "$work/dev.txt" | cut -d: -f1)"
        [ "$run" = 3 ] || stop_dev "$work/three"
    done
    sleep 5
    say "idle, resident, MiB a node" "$(memory VmRSS "$work/three")"
    say "idle, CPU, percent of a core a node" "$(idle_cpu "$work/three")"

    stop_dev "$work/three"
}

figures_many() {
    start_dev "$work/three"
    from=$(now_ms)
    strandline topic create many --partitions 1000 --replication 3 > /dev/null
    created=$(now_ms)
    until is_whole; do sleep 0.05; done
    say "1 000 partitions × 3: command returns, all in sync" "$((created - from)) ms, $(($(now_ms) - from)) ms"
    sleep 5
    say "idle with 1 000 partitions × 3, resident, MiB a node" "$(memory VmRSS "$work/three")"
    say "idle with 1 000 partitions × 3, CPU, percent of a core" "$(idle_cpu "$work/three")"
    stop_dev "$work/three"
}

# Old segments go, so that the disk need not hold three times what went through.
figures_big() {
    start_dev "$work/big"
    strandline bench produce --topic big --partitions 12 --replication 3 --size 1024 --records 10500000 --duration 5m \
        --config retention.bytes=134217728 --config segment.bytes=67108864 > "$work/big.txt" 2>/dev/null
    say "10.7 GB through three nodes" "$(grep throughput "$work/big.txt" | tr -s ' ')"
    say "  most resident, MiB a node" "$(memory VmHWM "$work/big")"
    stop_dev "$work/big"
}

figures_away() {
    start_dev "$work/away" --no-restart
    strandline bench produce --topic away --partitions 12 --replication 3 --size 1024 --duration 40s \
        --config retention.bytes=402653184 --config segment.bytes=67108864 > "$work/away.txt" 2> "$work/away.err" &
    producer=$!
    sleep 5
    kill -KILL "$(cat "$work/away/node-3/pid")"
    sleep 8
    # A restart as `dev` would do it: the same flags.
    mapfile -d '' -t flags < <(printf '%s\0' serve --node-id 3 --data-dir "$work/away/node-3" \
        --listen-grpc "127.0.0.1:$((grpc + 2))" --listen-peer "127.0.0.1:$((peer + 2))" \
        --form-cluster "1=127.0.0.1:$peer,2=127.0.0.1:$((peer + 1)),3=127.0.0.1:$((peer + 2))")
    before=$(du -sk "$work/away/node-1" | cut -f1)
    missing=$((before - $(du -sk "$work/away/node-3" | cut -f1)))
    strandline "${flags[@]}" > "$work/node-3.txt" 2>&1 &
    node=$!
    from=$(now_ms)
    until is_whole; do sleep 0.05; kill -0 "$node"; done
    say "a node away for 8 s, $((missing / 1024)) MiB behind: in sync after" "$(($(now_ms) - from)) ms"
    kill -0 "$producer" && say "  writes went on" "yes"
    wait "$producer" || { cat "$work/away.err" >&2; exit 1; }
    say "  producer over its 40 s" "$(grep throughput "$work/away.txt" | tr -s ' ')"
    kill -INT "$node"
    wait "$node" || true
    node=
    stop_dev "$work/away"
}

# Keyed lines: every Rust source of the local cargo registry, two million lines of it.
figures_text() {
    start_dev "$work/text"
    find "${CARGO_HOME:-$HOME/.cargo}/registry/src" -name '*.rs' -print0 | sort -z | xargs -0 cat | tr -d '\r' | iconv -c -t utf-8 |
        awk '{ gsub(/:/, ";"); print "key-" NR % 5000 ":" NR " " $0 } NR == 2000000 { exit }' > "$work/lines.txt" || true
    strandline topic create text --partitions 12 --replication 3 > /dev/null
    ( # One node after another, every five seconds, as long as the producer runs.
        victim=0
        while sleep 5; do
            kill -KILL "$(cat "$work/text/node-$((victim % 3 + 1))/pid")"
            victim=$((victim + 1))
            echo "$victim" > "$work/kills.txt"
        done
    ) &
    killer=$!
    # Slowed to thirty seconds and more, so that the kills come in the middle.
    awk -v pause=60000 '{ print } NR % pause == 0 { fflush(); system("sleep 1") }' "$work/lines.txt" |
        strandline produce text --key-separator ':' > "$work/text.txt" 2>&1
    kill "$killer"
    strandline consume text --from earliest --exit-at-end --format '%k:%v' > "$work/read.txt"
    sort "$work/lines.txt" | md5sum > "$work/want.md5"
    sort "$work/read.txt" | md5sum > "$work/got.md5"
    cmp -s "$work/want.md5" "$work/got.md5" || { echo "lines differ from what was produced" >&2; exit 1; }
    awk -F: '{ split($2, part, " "); if (part[1] + 0 <= last[$1]) { print "out of order: " $0; exit 1 } last[$1] = part[1] + 0 }' "$work/read.txt"
    say "$(wc -l < "$work/read.txt") lines, $(cat "$work/kills.txt") kills: none lost, none twice" "order kept in 5 000 keys"
}

# Requests over HTTP, the generator on the same machine. The limit for the last two is set low, so that four times as much can be sent.
load() { # what is measured, directory, flags…
    local what=$1 dir=$2
    shift 2
    echo "$what"
    strandline bench load --data-dir "$dir" --warmup 2s "$@" 2> "$work/load.err" |
        grep -E '^(throughput|requests|latency|429|CPU|limit)' || { cat "$work/load.err" >&2; exit 1; }
}
figures_http() {
    local all="http://127.0.0.1:$http,http://127.0.0.1:$((http + 1)),http://127.0.0.1:$((http + 2))"
    local one="http://127.0.0.1:$http" limit
    start_dev "$work/http"
    load "/produce, closed loop" "$work/http" --url "$all" --concurrency 500 --rate max
    load "/produce, the highest rate that holds" "$work/http" --url "$all" --concurrency 2000 --rate 10000 \
        --find-limit --json-file "$work/limit.json"
    limit=$(grep -o '"limit":{"requests_per_second":[0-9]*' "$work/limit.json" | grep -o '[0-9]*$')
    load "/produce at half of it" "$work/http" --url "$all" --concurrency 2000 --rate "$((limit / 2))" --duration 30s
    load "/produce, 8 000 clients that never wait, one gateway (it lets 4 096 in)" "$work/http" --url "$one" \
        --concurrency 8000 --rate max --duration 30s
    load "/register_event, closed loop" "$work/http" --url "$all" --path register --concurrency 500 --rate max
    stop_dev "$work/http"
    start_dev "$work/http" -- --http-client-rate 5000 --http-client-burst 500
    load "/produce just below a limit of 5 000/s" "$work/http" --url "$one" --concurrency 1000 --rate 4900 --duration 20s
    load "/produce at four times that limit" "$work/http" --url "$one" --concurrency 1000 --rate 20000 --duration 20s
    stop_dev "$work/http"
    start_dev "$work/http"
    load "/api/events, closed loop" "$work/http" --url "$all" --path ingest --concurrency 300 --rate max
    stop_dev "$work/http"
}

for part in "${@:-start many big away text http}"; do
    for name in $part; do "figures_$name"; done
done
