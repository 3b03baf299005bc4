// @i-know-the-amp-plugin-api-is-wip-and-very-experimental-right-now
// jackin-status: tells the capsule what Amp is doing. It only watches, never throws, and does nothing outside a session.
// Written anew at each start; changes are lost.
import { spawn } from "node:child_process"

const session = process.env.JACKIN_SESSION_ID
const capsule = (process.env.JACKIN_RUNTIME_DIR || "/jackin/runtime") + "/jackin-capsule"
const env = { ...process.env, JACKIN_AGENT_RUNTIME: "amp", JACKIN_STATUS_SOURCE: `hook-amp-${session}` }
const MAX_WAITING = 32
const HEARTBEAT = 10_000

// One after the other, because order is what they are about.
let waiting = 0
let last = Promise.resolve()

function report(event) {
  if (!session || waiting >= MAX_WAITING) return
  waiting += 1
  last = last.then(() => send(event)).finally(() => (waiting -= 1))
}

function send(event) {
  return new Promise((resolve) => {
    try {
      const child = spawn(capsule, ["report-event", "--event", event], { env, stdio: "ignore", timeout: 2_000 })
      child.on("error", resolve)
      child.on("close", resolve)
    } catch {
      resolve()
    }
  })
}

export default function (amp) {
  // A tool may run for long, and to be asked before each (`tool.call`) means to have a say in it.
  let beat
  amp.on("agent.start", async () => {
    report("agent.start")
    clearInterval(beat)
    beat = setInterval(() => report("heartbeat"), HEARTBEAT)
    beat.unref?.()
  })
  amp.on("tool.result", async () => report("tool.result"))
  amp.on("agent.end", async () => {
    clearInterval(beat)
    report("agent.end")
  })
}
