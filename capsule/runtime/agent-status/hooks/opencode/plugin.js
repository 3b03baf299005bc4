// jackin-status: tells the capsule what OpenCode is doing. It only watches, never throws, and does nothing outside a
// session. Written anew at each start; changes are lost.
import { spawn } from "node:child_process"

const session = process.env.JACKIN_SESSION_ID
const capsule = (process.env.JACKIN_RUNTIME_DIR || "/jackin/runtime") + "/jackin-capsule"
const env = { ...process.env, JACKIN_AGENT_RUNTIME: "opencode", JACKIN_STATUS_SOURCE: `hook-opencode-${session}` }
const MAX_WAITING = 32
const HEARTBEAT = 10_000

// One after the other, because order is what they are about.
let waiting = 0
let last = Promise.resolve()
let reported = 0

function report(event, payload = {}) {
  if (!session || waiting >= MAX_WAITING) return
  waiting += 1
  reported = Date.now()
  last = last.then(() => send(event, payload)).finally(() => (waiting -= 1))
}

function send(event, payload) {
  return new Promise((resolve) => {
    try {
      const args = ["report-event", "--event", event, "--payload-stdin"]
      const child = spawn(capsule, args, { env, stdio: ["pipe", "ignore", "ignore"], timeout: 2_000 })
      child.on("error", resolve)
      child.on("close", resolve)
      child.stdin.on("error", () => {})
      child.stdin.end(JSON.stringify(payload))
    } catch {
      resolve()
    }
  })
}

export const JackinStatus = async () => {
  // Sessions of sub-agents: when one of them is idle, the one that the operator sees is not.
  const children = new Set()
  return {
    event: async ({ event }) => {
      const about = event?.properties ?? {}
      switch (event?.type) {
        case "session.created":
        case "session.updated":
          if (about.info?.parentID) children.add(about.info.id)
          break
        case "session.deleted":
          children.delete(about.info?.id)
          break
        case "session.status":
        case "session.idle":
        case "session.error":
          if (!children.has(about.sessionID)) report(event.type, { status: about.status?.type })
          break
        // Whoever asks, the operator has to answer.
        case "permission.asked":
        case "permission.replied":
          report(event.type)
          break
        case "permission.updated":
          report("permission-requested")
          break
        case "question.asked":
          report("question-asked")
          break
        case "question.replied":
        case "question.rejected":
          report("question-answered")
          break
        case "message.part.updated":
          if (Date.now() - reported > HEARTBEAT) report("heartbeat")
          break
      }
    },
    "tool.execute.before": async () => report("tool.execute.before"),
    "tool.execute.after": async () => report("tool.execute.after"),
  }
}
