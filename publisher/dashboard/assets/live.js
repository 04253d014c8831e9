// One event stream for all tabs of a browser session: a browser opens only six connections to a server (HTTP/1.1), and a
// stream holds one for good. Runs as a SharedWorker; where there is none, a page loads it and has a stream of its own.
"use strict";

const KINDS = ["state", "stage", "progress", "metric", "log"];
const PAUSE = 5000;
const OF_LISTS = ["state", "stage", "progress"];

class LiveStream {
  // a page: {after, job, hear}; `after` is the number of the last event that it knows, `job` whose events it wants, all
  // jobs' if there is none. It hears {kind, data}, {away: true} when the service goes away, {returned: true} when it is
  // back, and {signedOut: true} when the session is over and no more will come.
  #pages = new Set();
  #source = null;
  #away = false;
  #again = null;
  #session;

  constructor(session) {
    this.#session = session;
  }

  add(page) {
    this.#pages.add(page);
    this.#connect();
  }

  remove(page) {
    if (this.#pages.delete(page)) this.#connect();
  }

  // Anew for other pages, from the oldest number that one of them knows: what others have they are not told again.
  #connect() {
    this.#source?.close();
    clearTimeout(this.#again);
    this.#source = this.#pages.size ? new EventSource(this.#address()) : null;
    if (!this.#source) return;
    for (const kind of KINDS) this.#source.addEventListener(kind, (event) => this.#tell(event));
    this.#source.onopen = () => {
      if (this.#away) this.#say({ returned: true });
      this.#away = false;
    };
    // CONNECTING: the browser tries again by itself and goes on after the last event
    this.#source.onerror = ({ target }) => {
      this.#away = true;
      this.#say({ away: true });
      if (target.readyState === EventSource.CLOSED) this.#ask();
    };
  }

  // The answer was no stream: the session is over, or what answers there now is not the service.
  async #ask() {
    const source = this.#source;
    const answer = await fetch(this.#address(), { headers: { Accept: "text/event-stream" } }).catch(() => null);
    answer?.body?.cancel();
    if (source !== this.#source) return;
    if (answer?.status === 401) this.#say({ signedOut: true });
    else {
      this.#say({ away: true, crowded: answer?.status === 429 });
      this.#again = setTimeout(() => this.#connect(), PAUSE);
    }
  }

  #address() {
    const pages = [...this.#pages], jobs = new Set(pages.map((page) => page.job).filter(Boolean));
    const query = new URLSearchParams({ session: this.#session, after: Math.min(...pages.map((page) => page.after)) });
    for (const kind of pages.every((page) => page.job) ? ["state"] : OF_LISTS) query.append("kind", kind);
    for (const job of jobs) query.append("all_of", job);
    return `/events?${query}`;
  }

  #tell(event) {
    const number = Number(event.lastEventId), data = JSON.parse(event.data);
    for (const page of this.#pages) {
      if (number <= page.after) continue;
      page.after = number;
      if (!page.job || page.job === data.job_id) page.hear({ kind: event.type, data });
    }
  }

  #say(what) {
    for (const page of this.#pages) page.hear(what);
  }
}

if (self.SharedWorkerGlobalScope) {
  const stream = new LiveStream(self.name);
  self.onconnect = ({ ports: [port] }) => {
    const page = { hear: (what) => port.postMessage(what) };
    port.onmessage = ({ data }) => {
      if (data.leaves) stream.remove(page);
      else stream.add(Object.assign(page, data));
    };
    port.onclose = () => stream.remove(page);
  };
}
