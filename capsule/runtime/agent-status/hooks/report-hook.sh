#!/bin/sh
# What the hooks of Claude and Codex run: report-hook.sh <agent> <event>, the payload on standard input.
# An agent must never notice it: it says nothing and always succeeds. Outside a session it does nothing.
capsule=${JACKIN_RUNTIME_DIR:-/jackin/runtime}/jackin-capsule
if [ "$#" -ge 2 ] && [ -n "${JACKIN_SESSION_ID:-}" ] && [ -x "$capsule" ]; then
    # Not what the session was started as: an agent may run another one as its tool.
    JACKIN_AGENT_RUNTIME=$1 JACKIN_STATUS_SOURCE=hook-$1-$JACKIN_SESSION_ID \
        "$capsule" report-event --event "$2" --payload-stdin >/dev/null 2>&1
fi
exit 0
