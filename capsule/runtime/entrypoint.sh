#!/bin/sh
# First program of every agent session: prepare, run the role's hooks, become the agent.
# In: JACKIN_AGENT and the arguments for it (a model flag). Out: the agent's own exit code, or that of a hook that failed.
# Absent: bash. Images without it must work too.
set -eu

agent=${JACKIN_AGENT:?jackin: JACKIN_AGENT is not set}
runtime=${JACKIN_RUNTIME_DIR:-/jackin/runtime}
state=${JACKIN_STATE_DIR:-/jackin/state}
run=${JACKIN_RUN_DIR:-/jackin/run}
hooks=${JACKIN_HOOKS_DIR:-$runtime/hooks}

# Where the vendors install; an image may well have a PATH of its own.
for dir in .local/bin .amp/bin .kimi-code/bin .opencode/bin .grok/bin; do
    case ":$PATH:" in
    *":$HOME/$dir:"*) ;;
    *) PATH=$HOME/$dir:$PATH ;;
    esac
done
export PATH

if [ -x "$runtime/jackin-capsule" ]; then
    "$runtime/jackin-capsule" runtime-setup
fi

export JACKIN_STATUS_SOCKET="${JACKIN_STATUS_SOCKET:-$run/jackin.sock}"
export JACKIN_STATUS_SOURCE="${JACKIN_STATUS_SOURCE:-wrapper-${JACKIN_SESSION_ID:-0}}"
export JACKIN_AGENT_RUNTIME="$agent"

case $agent in
claude)
    if [ -n "${JACKIN_EXEC_BINDINGS:-}" ]; then
        set -- --system-prompt "Some commands need credentials that only the operator can grant. Run them as: jackin-exec <command>. \
Available: $JACKIN_EXEC_BINDINGS" "$@"
    fi
    set -- claude --settings '{"skipDangerousModePermissionPrompt":true}' --dangerously-skip-permissions --verbose "$@"
    ;;
codex)
    if [ -n "${JACKIN_CODEX_PROFILE:-}" ]; then
        catalog=${CODEX_HOME:-$HOME/.codex}/$JACKIN_CODEX_PROFILE.models.json
        if [ -f "$catalog" ]; then
            set -- -c "model_catalog_json=$catalog" "$@"
        fi
        set -- --profile "$JACKIN_CODEX_PROFILE" "$@"
    fi
    set -- codex --enable goals --dangerously-bypass-approvals-and-sandbox "$@"
    ;;
amp)
    # Takes no model.
    set -- amp --dangerously-allow-all
    ;;
kimi)
    set -- kimi --yolo "$@"
    ;;
opencode)
    export OPENCODE_CONFIG_CONTENT='{"permission":"allow"}'
    set -- opencode "$@"
    ;;
grok)
    set -- grok --always-approve "$@"
    ;;
*)
    echo "jackin: unknown agent '$agent'" >&2
    exit 2
    ;;
esac

# The role's hooks. The marker is written only after success, so that a failed setup is tried again.
if [ -f "$hooks/setup-once.sh" ] && [ ! -e "$state/hooks/setup-once.done" ]; then
    sh -c 'if [ -x "$1" ]; then exec "$1"; else exec sh "$1"; fi' setup-once "$hooks/setup-once.sh" || {
        code=$?
        echo "jackin: the setup-once hook failed with $code" >&2
        exit $code
    }
    mkdir -p "$state/hooks"
    : >"$state/hooks/setup-once.done"
fi
if [ -f "$hooks/source.sh" ]; then
    before=$PWD
    # Its variables are what it is for; it may leave strict mode and the directory as it likes.
    set +eu
    . "$hooks/source.sh"
    code=$?
    set -eu
    cd "$before"
    if [ "$code" -ne 0 ]; then
        echo "jackin: the source hook failed with $code" >&2
        exit "$code"
    fi
fi
if [ -f "$hooks/preflight.sh" ]; then
    (
        cd "$HOME"
        if [ -x "$hooks/preflight.sh" ]; then exec "$hooks/preflight.sh"; else exec sh "$hooks/preflight.sh"; fi
    ) || {
        code=$?
        echo "jackin: the preflight hook failed with $code" >&2
        exit $code
    }
fi

exec "$@"
