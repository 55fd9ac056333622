#!/usr/bin/env bash
# Property-based requests against a running gateway, made from its own OpenAPI document: no answer may be a 5xx.
# /v1/live is left out: its answer has no end.
#
#     python3 -m venv /tmp/schemathesis && /tmp/schemathesis/bin/pip install 'schemathesis>=4,<5'
#     strandline dev &        # a cluster that nobody needs: topics are created and deleted
#     SCHEMATHESIS=/tmp/schemathesis/bin/schemathesis ops/gateway/schemathesis.sh http://127.0.0.1:8080
set -euo pipefail
base=${1:-http://127.0.0.1:8080}
exec "${SCHEMATHESIS:-schemathesis}" run "$base/openapi.json" --url "$base" --exclude-path /v1/live --checks not_a_server_error \
    --max-examples "${EXAMPLES:-30}" --request-timeout 40 --continue-on-failure --seed "${SEED:-1}"
