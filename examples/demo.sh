#!/usr/bin/env bash
# The main job, from nothing to nothing: a web service as three dynos.
# Called by `make demo` with the folder of the programs.
set -euo pipefail

programs=$(cd "${1:?usage: demo.sh FOLDER_OF_PROGRAMS}" && pwd)
folder=$(mktemp -d /tmp/dyno-demo-XXXXXX)
export DYNO_STATE_DIR=$folder/state DYNO_RUN_DIR=$folder/run
export DYNO_SOCKET=$folder/run/hostd.sock DYNO_AUTOSTART=0
PATH=$programs:$PATH

if [ -t 1 ]; then bold=$'\e[1m' dim=$'\e[2m' green=$'\e[32m' off=$'\e[0m'; else bold='' dim='' green='' off=''; fi

say() { printf '\n%s%s%s\n' "$bold" "$*" "$off"; }
show() { printf '%s$ %s%s\n' "$green" "$*" "$off"; }
run() { show "$@"; "$@"; }
fail() { printf '\nThe demo failed: %s\n' "$1" >&2; tail -n 20 "$folder/hostd.log" >&2; exit 1; }

# Waits until a command succeeds; nothing here takes longer than 20 s.
until_so() {
    local end=$((SECONDS + 20))
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$end" ] || fail "not within 20 s: $*"
        sleep 0.05
    done
}

# Stops hostd, and takes down what it keeps in the kernel.
end_hostd() {
    dyno ps -a -q 2>/dev/null | while read -r id; do dyno rm -f "$id" >/dev/null; done
    kill "$hostd" 2>/dev/null && wait "$hostd" 2>/dev/null || true
    hostd=''
    hostd teardown
}

clean_up() {
    local code=$?
    trap - EXIT
    cd /
    if [ -n "${hostd:-}" ]; then end_hostd || code=1; fi
    rm -rf "$folder"
    exit "$code"
}
trap clean_up EXIT

# Whatever of this host is still there: processes, mounts, links, rules, cgroups.
what_is_left() {
    local process
    for process in /proc/[0-9]*; do
        case $(tr '\0' ' ' 2>/dev/null <"$process/cmdline") in *"$folder"*) echo "$process" ;; esac
    done 2>/dev/null
    grep "$folder" /proc/self/mountinfo || true
    ls /sys/class/net | grep "$id" || true
    find /sys/fs/cgroup -name "dyno-$id" 2>/dev/null || true
}

[ "$(id -u)" = 0 ] || { echo "make demo runs as root: it makes namespaces, mounts and links" >&2; exit 1; }

say "A daemon, and nothing else: no Docker, no registry, no configuration"
show "hostd serve &"
hostd serve 2>"$folder/hostd.log" &
hostd=$!
until_so dyno version
run dyno info
id=$(dyno info --json | sed -n 's/.*"id": *"\([0-9a-f]*\)".*/\1/p')

say "A web service as three dynos, on the image that is always there"
cp "$programs/web" "$folder/web"
cd "$folder"
for n in 1 2 3; do
    run dyno run -d --name "web-$n" -p 8080 -m 64M --restart always -v ./web:/web:ro host /web
done
port() { dyno inspect --json "web-$1" | sed -n 's/.*"host_port": *\([0-9][0-9]*\).*/\1/p' | tail -n 1; }
for n in 1 2 3; do until_so web get "127.0.0.1:$(port "$n")" /; done
run dyno ps

say "Each is reached from this machine through its published port"
for n in 1 2 3; do run web get "127.0.0.1:$(port "$n")" /; done

say "They find each other by name"
run dyno exec web-1 getent hosts web-2 web-3

say "What they print is kept"
run dyno logs web-2

say "A command inside: its root is nobody on the host"
run dyno exec web-1 id
run dyno exec web-1 cat /proc/self/uid_map
run dyno exec web-1 grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status

say "A memory limit holds: this one asks for more than its 32 MiB"
show "dyno run --rm -m 32M host sh -c 'head -c 200M /dev/zero | tail'"
code=0
dyno run --rm -m 32M host sh -c 'head -c 200M /dev/zero | tail' >/dev/null 2>&1 || code=$?
printf 'exit code %s: killed\n' "$code"
[ "$code" = 137 ] || fail "the memory limit did not hold"

say "One crashes, and comes back"
restarts() { dyno inspect --json web-3 | sed -n 's/.*"restarts": *\([0-9]*\).*/\1/p' | tail -n 1; }
show "web get 127.0.0.1:$(port 3) /crash"
web get "127.0.0.1:$(port 3)" /crash || true
came_back() { [ "$(restarts)" -ge 1 ] && web get "127.0.0.1:$(port 3)" /; }
until_so came_back
run web get "127.0.0.1:$(port 3)" /

say "The daemon is killed; the dynos do not notice"
pids() { dyno ps --json | sed -n 's/.*"pid": *\([0-9]*\).*/\1/p' | tr '\n' ' '; }
before=$(pids) second=$(port 2)
show "kill -9 \$hostd"
kill -9 "$hostd"; wait "$hostd" 2>/dev/null || true
run web get "127.0.0.1:$second" / || fail "no answer while hostd was away"
show "hostd serve &"
hostd serve 2>>"$folder/hostd.log" &
hostd=$!
until_so dyno version
[ "$(pids)" = "$before" ] || fail "a dyno was restarted"
run dyno ps

say "And nothing is left behind"
run dyno rm -f web-1 web-2 web-3
show "kill \$hostd; hostd teardown"
end_hostd
left=$(what_is_left)
[ -z "$left" ] || fail "left behind: $left"
printf 'no process, mount, link or cgroup of it is left\n'
printf '\n%sdone in %s s%s\n' "$dim" "$SECONDS" "$off"
