// What the page asks the console, each time with the token. The token comes in the fragment of the address, which browsers
// send to nobody. It is kept in the storage of this origin: unlike a cookie, that is not shared with other ports.
const TOKEN = "token=", AGAIN = 1000;
let token = "", renewed = () => {};

function takeToken() {
  const given = location.hash.slice(1);
  if (given.startsWith(TOKEN)) {
    localStorage.setItem(TOKEN, given.slice(TOKEN.length));
    history.replaceState(null, "", "#");
  }
  token = localStorage.getItem(TOKEN) ?? "";
  renewed();
}

takeToken();
addEventListener("hashchange", takeToken);

export function ask(path, more = {}) {
  return fetch(path, { ...more, headers: { ...more.headers, Authorization: `Bearer ${token}` } });
}

async function readUpdates(answer, take) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    const blocks = (rest + part.value).split("\n\n");
    rest = blocks.pop();
    for (const each of blocks.filter((block) => block.startsWith("data: "))) {
      try {
        take(JSON.parse(each.slice("data: ".length)));
      } catch (error) {
        reportError(error); // the next update may be drawn nevertheless
      }
    }
  }
}

// Gets the updates of the page for as long as it is open. `tell` hears "live", "not connected" or "refused".
export async function follow(take, tell) {
  for (;;) {
    const used = token;
    try {
      const answer = await ask("/events");
      if (answer.ok) {
        await readUpdates(answer, take);
      } else if (answer.status === 403 && used === token) {
        tell("refused");
        await new Promise((resolve) => { renewed = resolve; });
        continue;
      }
    } catch {
      // The console has ended, or cannot be reached for a while.
    }
    tell("not connected");
    await new Promise((resolve) => { setTimeout(resolve, AGAIN); });
  }
}
