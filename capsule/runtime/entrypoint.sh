#!/bin/sh
# First program of every agent session: prepare, run the role's hooks, become the agent.
# In: JACKIN_AGENT and the arguments for it (a model flag). Out: the agent's own exit code, or that of a hook that failed.
# Absent: the need for bash; images without it must work too.
set -eu

agent=${JACKIN_AGENT:?jackin: JACKIN_AGENT is not set}
runtime=${JACKIN_RUNTIME_DIR:-/jackin/runtime}
run=${JACKIN_RUN_DIR:-/jackin/run}
jackin_hooks=${JACKIN_HOOKS_DIR:-$runtime/hooks}

# The source hook is read by this very shell, and roles write it for bash.
if [ -z "${BASH_VERSION:-}" ] && [ -f "$jackin_hooks/source.sh" ] && command -v bash >/dev/null; then
    exec bash "$0" "$@"
fi

# Where the vendors install; an image may well have a PATH of its own.
for dir in .local/bin .amp/bin .kimi-code/bin .opencode/bin .grok/bin; do
    case ":$PATH:" in
    *":$HOME/$dir:"*) ;;
    *) PATH=$HOME/$dir:$PATH ;;
    esac
done
export PATH

"$runtime/jackin-capsule" runtime-setup

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
    # It goes by either name.
    if [ -n "${XAI_API_KEY:-}" ]; then
        export GROK_DEPLOYMENT_KEY="${GROK_DEPLOYMENT_KEY:-$XAI_API_KEY}"
    fi
    set -- grok --always-approve "$@"
    ;;
*)
    echo "jackin: unknown agent '$agent'" >&2
    exit 2
    ;;
esac

# The role's hooks. The capsule remembers that setup-once succeeded, so that a failed one is tried again, and lets sessions
# that start together wait for each other.
if [ -f "$jackin_hooks/setup-once.sh" ]; then
    "$runtime/jackin-capsule" setup-once "$jackin_hooks/setup-once.sh" || {
        code=$?
        echo "jackin: the setup-once hook failed with $code" >&2
        exit "$code"
    }
fi
# A function of its own, so that the hook's `set --` does not change the agent's arguments.
source_hook() {
    # shellcheck source=/dev/null
    . "$jackin_hooks/source.sh"
}
if [ -f "$jackin_hooks/source.sh" ]; then
    jackin_before=$PWD
    case $- in *x*) jackin_traced=x ;; *) jackin_traced= ;; esac
    # Its variables are what it is for, and may be secrets: no trace. It may leave strict mode and the directory as it likes.
    set +eux
    source_hook
    jackin_code=$?
    set -eu
    [ -z "$jackin_traced" ] || set -x
    cd "$jackin_before"
    if [ "$jackin_code" -ne 0 ]; then
        echo "jackin: the source hook failed with $jackin_code" >&2
        exit "$jackin_code"
    fi
fi
if [ -f "$jackin_hooks/preflight.sh" ]; then
    (
        cd "$HOME"
        if [ -x "$jackin_hooks/preflight.sh" ]; then exec "$jackin_hooks/preflight.sh"; else exec sh "$jackin_hooks/preflight.sh"; fi
    ) || {
        code=$?
        echo "jackin: the preflight hook failed with $code" >&2
        exit "$code"
    }
fi

exec "$@"
