#!/usr/bin/env bash
# Several daemons that are one, to try it: three etcds, two nodes and two workers on this machine, until Ctrl-C.
#   nc localhost 5050   and   nc localhost 5060   are the nodes; kill -9 one, and ask the other.
set -euo pipefail
var=${1:-var/nodes}  # `cluster` would be a file of the daemon that `make run` starts
cronflowd=${CRONFLOWD:-.venv/bin/cronflowd}
command -v etcd >/dev/null || { echo "cluster: there is no etcd here (Debian: etcd-server)" >&2; exit 69; }
mkdir -p "$var"
# An etcd without the others would take its time to end.
trap 'trap - EXIT; kill $(jobs -p) 2>/dev/null || true; sleep 2; kill -9 $(jobs -p) 2>/dev/null || true; wait' EXIT
trap exit INT TERM

members=
for n in 1 2 3; do members+=${members:+,}e$n=http://127.0.0.1:${n}2380; done
for n in 1 2 3; do
    etcd --name "e$n" --data-dir "$var/etcd$n" --logger zap --log-level error \
        --listen-client-urls "http://127.0.0.1:${n}2379" --advertise-client-urls "http://127.0.0.1:${n}2379" \
        --listen-peer-urls "http://127.0.0.1:${n}2380" --initial-advertise-peer-urls "http://127.0.0.1:${n}2380" \
        --initial-cluster "$members" &
done
for node in n1:5050 n2:5060; do
    name=${node%:*} port=${node#*:}
    "$cronflowd" --data "$var/$name" --node "$name" --local-worker 0 \
        --listen "127.0.0.1:$port" --listen-workers "127.0.0.1:$((port + 1))" \
        --etcd 127.0.0.1:12379,127.0.0.1:22379,127.0.0.1:32379 &
done
for worker in w1 w2; do
    "$cronflowd" worker --name "$worker" --spool "$var/$worker" --connect 127.0.0.1:5051,127.0.0.1:5061 &
done
wait
