// A client on the reference SDK: client.mjs URL NAMESPACE CLIENT_ID
//
// It takes {"id", "call": tool, "arguments"?, "stream"?: true, "timeout"?: ms} and {"id", "card": tool} on stdin, any
// number at once, and prints {"id", "partial"}, and then {"id", "result"} or {"id", "error"}, for each. A result that
// is undefined comes without "result". It leaves when stdin is closed.
import { MCPClient } from '@cloudsignal/mcp-over-mqtt'
import { listen, logger, tell } from './lines.mjs'

const [url, namespace, clientId] = process.argv.slice(2)
const credentials = { orgId: 'tests', externalToken: 'none' }
const client = new MCPClient({ clientId, namespace, broker: url, credentials, logger })

async function answer({ id, call, card, arguments: given = {}, stream = false, timeout }) {
  try {
    const options = { timeoutMs: timeout }
    if (stream) {
      options.onStream = (partial) => tell({ id, partial })
    }
    const result = card === undefined ? await client.call(call, given, options) : await client.getToolCard(card)
    tell({ id, result })
  } catch (error) {
    tell({ id, error: error.message })
  }
}

await client.start()
listen(answer, () => client.stop())
tell({ ready: clientId })
