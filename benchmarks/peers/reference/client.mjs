// The reference SDK's client, with default settings: client.mjs URL. Its commands are those of ../load.py.
import { createInterface } from 'node:readline'
import { MCPClient } from '@cloudsignal/mcp-over-mqtt'

const quiet = { info() {}, warn: console.error, error: console.error }
const credentials = { orgId: 'bench', externalToken: 'none' }
const client = new MCPClient({
  clientId: 'bench-client',
  namespace: 'a2a/v1',
  broker: process.argv[2],
  credentials,
  logger: quiet,
})
const tell = (message) => console.log(JSON.stringify(message))

async function run({ at_once: atOnce, seconds, text }) {
  const milliseconds = []
  const began = performance.now()
  const ends = began + seconds * 1000
  async function worker() {
    let now = performance.now()
    while (now < ends) {
      const answer = await client.call('echo', { text }, { timeoutMs: 60_000 })
      const then = now
      now = performance.now()
      milliseconds.push(now - then)
      if (answer.text !== text) {
        throw new Error('a wrong answer')
      }
    }
  }
  await Promise.all(Array.from({ length: atOnce }, worker))
  tell({ milliseconds, seconds: (performance.now() - began) / 1000 })
}

await client.start()
tell({ ready: true })
const lines = createInterface({ input: process.stdin })
lines.on('line', (line) => run(JSON.parse(line)))
lines.on('close', () => process.exit(0))
