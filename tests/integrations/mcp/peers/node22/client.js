// The official TypeScript client: node client.js COMMAND ARGUMENTS... Prints what it saw as one line of JSON.
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { ElicitRequestSchema, ToolListChangedNotificationSchema } from "@modelcontextprotocol/sdk/types.js";

const [command, ...args] = process.argv.slice(2);
const client = new Client({ name: "test", version: "1" }, { capabilities: { elicitation: {} } });
client.setRequestHandler(ElicitRequestSchema, async () => ({ action: "accept", content: { answer: "Oslo" } }));
let changed;
const change = new Promise((resolve) => {
  changed = resolve;
});
client.setNotificationHandler(ToolListChangedNotificationSchema, () => changed());
await client.connect(new StdioClientTransport({ command, args, env: process.env, stderr: "inherit" }));
const progress = [];
const { tools } = await client.listTools();
const echoed = await client.callTool({ name: "echo", arguments: { text: "hi" } }, undefined, {
  onprogress: (said) => progress.push(said.progress),
});
const asked = await client.callTool({ name: "ask", arguments: {} });
await client.callTool({ name: "grow", arguments: {} });
await change;
const grown = (await client.listTools()).tools.map((tool) => tool.name);
console.log(JSON.stringify({ tools: tools.map((tool) => tool.name), echoed, progress, asked, grown }));
await client.close();
