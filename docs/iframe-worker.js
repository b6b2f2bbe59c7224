/* A page that is opened from the disk may not start a worker. There, the search runs in a hidden frame instead. */
if (location.protocol === "file:") {
  class FrameWorker extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      frame.title = "search";
      this.ready = new Promise((resolve) => frame.addEventListener("load", () => resolve(frame.contentWindow), { once: true }));
      const source = new URL(url, document.baseURI).href.replaceAll("&", "&amp;").replaceAll('"', "&quot;");
      window.addEventListener("message", (event) => {
        if (event.source === frame.contentWindow) {
          this.dispatchEvent(new MessageEvent("message", { data: event.data }));
        }
      });
      // In a worker, postMessage() sends to the page that has started the worker.
      frame.srcdoc = `<script>self.postMessage = (data) => parent.postMessage(data, "*")</script><script src="${source}"></script>`;
      const add = () => document.body.append(frame);
      document.body ? add() : document.addEventListener("DOMContentLoaded", add);
    }

    postMessage(data) {
      this.ready.then((target) => target.dispatchEvent(new MessageEvent("message", { data })));
    }

    terminate() {}
  }
  window.Worker = window.IFrameWorker = FrameWorker;
}
