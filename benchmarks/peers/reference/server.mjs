// The reference SDK's server with one tool, with default settings: server.mjs URL
import { defineTool, MCPServer } from '@cloudsignal/mcp-over-mqtt'

const quiet = { info() {}, warn: console.error, error: console.error }
const echo = defineTool({
  name: 'echo',
  description: 'Gives back its argument.',
  input_schema: { type: 'object', properties: { text: { type: 'string' } }, required: ['text'] },
  handler: async ({ text }) => ({ text }),
})
const credentials = { orgId: 'bench', externalToken: 'none' }
const server = new MCPServer({
  name: 'bench',
  namespace: 'a2a/v1',
  tools: [echo],
  broker: process.argv[2],
  credentials,
  logger: quiet,
})

await server.start()
console.log(JSON.stringify({ ready: true }))
process.stdin.on('end', () => process.exit(0)).resume()
