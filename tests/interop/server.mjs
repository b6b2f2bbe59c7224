// A tool server that uses the reference SDK: server.mjs URL NAMESPACE NAME [TOOL...]
//
// The program prints {"ready"} when it serves, {"executed": tool, "call_id", "client", "arguments"} for every call, and
// {"stopped"} when it has stopped in an orderly way, after stdin was closed. Without TOOL arguments, it offers all tools.
import { defineTool, MCPServer } from '@cloudsignal/mcp-over-mqtt'
import { listen, logger, tell } from './lines.mjs'

const [url, namespace, name, ...wanted] = process.argv.slice(2)
const numbers = { type: 'object', properties: { a: { type: 'number' }, b: { type: 'number' } }, required: ['a', 'b'] }
const anything = { type: 'object' }

const handlers = {
  add: {
    description: 'The sum of two numbers.',
    input_schema: numbers,
    output_schema: { type: 'number' },
    version: '1.2.3',
    allowed_callers: ['somebody'],
    handler: async ({ a, b }) => a + b,
  },
  // Streams its argument `partials` one by one: text goes as `content`, objects as `data`.
  stream: {
    description: 'Streams what it is given.',
    input_schema: { type: 'object', properties: { partials: { type: 'array' } } },
    supports_streaming: true,
    async handler({ partials }, { stream }) {
      for (const partial of partials) {
        await stream(partial)
      }
      return { streamed: partials.length }
    },
  },
  fail: {
    description: 'Never works.',
    input_schema: anything,
    async handler() {
      throw new Error('no such luck')
    },
  },
  nothing: { description: 'Has no result.', input_schema: anything, async handler() {} },
  echo: { description: 'Gives back its arguments.', input_schema: anything, handler: async (given) => given },
  work: { description: 'Says who did it.', input_schema: anything, handler: async ({ n }) => ({ n, by: name }) },
  hang: { description: 'Never answers.', input_schema: anything, handler: () => new Promise(() => {}) },
}

const tools = Object.entries(handlers)
  .filter(([tool]) => wanted.length === 0 || wanted.includes(tool))
  .map(([tool, { handler, ...card }]) =>
    defineTool({
      name: tool,
      ...card,
      handler(given, context) {
        tell({ executed: tool, call_id: context.call_id, client: context.client, arguments: given })
        return handler(given, context)
      },
    }),
  )

const credentials = { orgId: 'tests', externalToken: 'none' }
const server = new MCPServer({ name, namespace, tools, broker: url, credentials, logger })

listen(
  () => {},
  async () => {
    await server.stop()
    tell({ stopped: name })
  },
)

// The start of the reference waits for a random time of up to three seconds; the random number 0 makes it zero.
const random = Math.random
Math.random = () => 0
const starting = server.start()
Math.random = random
await starting
tell({ ready: name })
