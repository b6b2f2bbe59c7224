// A client that uses the reference SDK: client.mjs URL NAMESPACE CLIENT_ID
//
// The program reads {"id", "call": tool, "arguments"?, "stream"?: true, "timeout"?: ms} and {"id", "card": tool} from
// stdin, any number at once. For each, it prints {"id", "partial"}, and then {"id", "result"} or {"id", "error"}. If the
// result is undefined, "result" is missing. The program ends when stdin is closed.
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
