// JSON lines, the format in which these programs exchange messages with the tests.
import { createInterface } from 'node:readline'

export function tell(message) {
  process.stdout.write(JSON.stringify(message) + '\n')
}

// A logger for the reference, because its own logger writes to stdout.
export const logger = {
  info() {},
  warn: (text, data) => tell({ log: text, ...data }),
  error: (text, data) => tell({ log: text, ...data }),
}

// Passes each line of stdin to `take`. When stdin is closed, calls `end` and exits, at the latest after five seconds.
export function listen(take, end) {
  const lines = createInterface({ input: process.stdin })
  lines.on('line', (line) => take(JSON.parse(line)))
  lines.on('close', async () => {
    setTimeout(() => process.exit(1), 5000).unref()
    await end()
    process.exit(0)
  })
}
