// The official JavaScript client of A2A: sends a task, streams another one, answers a question, and lists its tasks.
// node client.mjs URL
import { randomUUID } from 'node:crypto';
import { ClientFactory } from '@a2a-js/sdk/client';
import { Role, TaskState } from '@a2a-js/sdk';

const client = await new ClientFactory().createFromUrl(`${process.argv[2]}/`);

function said(text, task) {
  const part = { content: { $case: 'text', value: text }, metadata: undefined, filename: '', mediaType: '' };
  return {
    tenant: '',
    message: {
      messageId: randomUUID(), role: Role.ROLE_USER, parts: [part], contextId: task?.contextId ?? '',
      taskId: task?.id ?? '', metadata: undefined, extensions: [], referenceTaskIds: [],
    },
    configuration: undefined,
    metadata: undefined,
  };
}

const told = {};
const done = await client.sendMessage(said('hello'));
told.hello = done;
told.stream = [];
for await (const event of client.sendMessageStream(said('stream'))) told.stream.push(event);
const asked = await client.sendMessage(said('login'));
told.asked = asked;
told.answered = await client.sendMessage(said('abc', asked.payload?.value ?? asked));
told.states = { completed: TaskState.TASK_STATE_COMPLETED, auth: TaskState.TASK_STATE_AUTH_REQUIRED };
console.log(JSON.stringify(told));
