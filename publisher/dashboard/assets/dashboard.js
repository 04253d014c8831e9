// Keeps a page that the server has rendered up to date. The page is complete without this script.
"use strict";

const $ = (selector, root = document) => root.querySelector(selector);

// --- the server's clock: its times are shown, so this browser's offset is taken out
const loaded = performance.now();
const startedAt = Number(document.body.dataset.now);
const now = () => startedAt + (performance.now() - loaded) / 1000;

function duration(seconds) {
  if (seconds < 9.95) return `${Math.max(seconds, 0).toFixed(1)} s`;
  let rest = Math.round(seconds);
  const units = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const first = units.findIndex(([length]) => rest >= length);
  return units.slice(first, first + 2).map(([length, unit]) => {
    const whole = Math.floor(rest / length);
    rest -= whole * length;
    return whole ? `${whole} ${unit}` : "";
  }).filter(Boolean).join(" ");
}

function size(bytes) {
  const units = ["TiB", "GiB", "MiB", "KiB"];
  const index = units.findIndex((_, place) => bytes >= 1024 ** (4 - place));
  return index < 0 ? `${Math.round(bytes)} B` : `${(bytes / 1024 ** (4 - index)).toFixed(1)} ${units[index]}`;
}

const isBytes = (unit) => unit.split(" ")[0] === "bytes";
const amount = (value, unit) => (isBytes(unit) ? size(value) : Math.round(value).toLocaleString("en"));

const number = (value) =>
  value && Math.abs(value) < 1e-3 ? value.toExponential(2).replace(/\.?0+e/, "e")
    : Math.abs(value) >= 1000 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(4)));

// --- times in the reader's own zone, with UTC under the pointer
const ZONED = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const HOURS = new Intl.DateTimeFormat(undefined, { timeStyle: "medium", hour12: false });

// `<time>`: "3 min ago" stays and says the moment under the pointer; `class="clock"` becomes the reader's hour, minute
// and second, `class="moment"` date and time.
function localise(root) {
  for (const time of root.querySelectorAll("time[datetime]:not([data-local])")) {
    const at = new Date(time.dateTime), utc = `${at.toISOString().slice(0, 19).replace("T", " ")} UTC`;
    time.dataset.local = "";
    if (time.className === "clock") time.textContent = HOURS.format(at);
    if (time.className === "moment") time.textContent = ZONED.format(at);
    time.title = time.className === "moment" ? utc : `${ZONED.format(at)} · ${utc}`;
  }
}
localise(document);

setInterval(() => {
  // what runs is not known while nobody tells
  if (away.since() !== null) return;
  for (const element of document.querySelectorAll("[data-since]")) {
    element.textContent = duration(now() - Number(element.dataset.since));
  }
}, 1000);

// --- take parts of the page as the server renders it now
async function take(address) {
  const response = await fetch(address, { headers: { Accept: "text/html" }, redirect: "error" });
  if (!response.ok) throw Object.assign(new Error(`HTTP ${response.status}`), { status: response.status });
  return new DOMParser().parseFromString(await response.text(), "text/html");
}

async function refresh(...ids) {
  const fresh = await take(location.href);
  document.title = fresh.title;
  localise(fresh);
  for (const id of ids) {
    const [old, next] = [document.getElementById(id), fresh.getElementById(id)];
    if (old && next) swap(old, next);
  }
}

// One element for another; what has the focus keeps it.
function swap(old, next) {
  if (old.outerHTML === next.outerHTML) return;
  const focus = old.contains(document.activeElement) ? document.activeElement : null;
  old.replaceWith(next);
  next.dispatchEvent(new CustomEvent("renewed", { bubbles: true }));
  if (focus) (same(focus, next) ?? heading(next))?.focus({ preventScroll: true });
}

// What has the focus stays where it was for whoever works by keyboard: the same link, or the button of the same form…
function same(element, root) {
  const [link, action] = [element.getAttribute("href"), element.form?.getAttribute("action")];
  if (link) return $(`a[href="${CSS.escape(link)}"]`, root);
  return action ? $(`form[action="${CSS.escape(action)}"] button`, root) : null;
}

// … and where that is gone, as the button of a job that has ended, near it rather than at the top of the page.
function heading(root) {
  const found = $("h1, h2", root);
  if (found) found.tabIndex = -1;
  return found;
}

// One refresh at a time; what was asked for meanwhile is fetched after it, and what did not come a little later.
const wanted = new Set();
const RETRY = 5000;
let refreshing = false;
async function want(...ids) {
  ids.forEach((id) => wanted.add(id));
  if (refreshing) return;
  refreshing = true;
  let parts = [];
  try {
    while (wanted.size) {
      parts = [...wanted];
      wanted.clear();
      await refresh(...parts);
    }
    away.page(false);
  } catch (error) {
    // whatever was shown here has been deleted, or is not for this reader any more
    if ([403, 404].includes(error.status)) { away.end("Live updates stopped. ", "Reload the page"); return; }
    parts.forEach((id) => wanted.add(id));
    away.page(true);
    setTimeout(want, RETRY);
  } finally {
    refreshing = false;
  }
}

// --- whether what is shown is kept up to date: said where it is not for longer than a moment
const away = (() => {
  const PATIENCE = 10000;
  const gone = { stream: null, page: null };
  let timer = null, ended = false, crowded = false;
  const since = () => {
    const times = Object.values(gone).filter((at) => at !== null);
    return times.length ? Math.min(...times) : null;
  };
  const say = (...told) => {
    const notice = $("#connection");
    notice?.replaceChildren(...told);
    if (notice) notice.hidden = !told.length;
  };
  const tell = () => {
    const at = HOURS.format(new Date(since() * 1000));
    say(crowded
      ? `Not kept up to date since ${at}: too many pages and event streams of your tenant are open. It goes on by itself as soon as some are closed.`
      : `Not connected since ${at}: what you see is of then. It goes on by itself as soon as the service answers.`);
  };
  const set = (what, isGone) => {
    if (ended) return;
    gone[what] = isGone ? gone[what] ?? now() : null;
    if (since() === null) { clearTimeout(timer); timer = null; say(); } else timer ??= setTimeout(tell, PATIENCE);
  };
  const end = (why, what) => {
    ended = true;
    gone.stream ??= now();
    clearTimeout(timer);
    const link = document.createElement("a");
    [link.href, link.textContent] = [location.pathname + location.search, what];
    say(why, link, " to go on.");
  };
  const stream = (isGone, isCrowded = isGone && crowded) => {
    crowded = isCrowded;  // known a moment after it is gone, for who asked why
    set("stream", isGone);
    if (!$("#connection")?.hidden && since() !== null && !ended) tell();
  };
  return { since, end, stream, page: (isGone) => set("page", isGone) };
})();

// --- what happens, from the one stream of all tabs (live.js) or, where tabs cannot share, from a stream of this page
function follow({ after, job, hear: tell }) {
  const { session, live } = document.body.dataset;
  const hear = (what) => {
    if (what.signedOut) { away.end("You are signed out: what you see is not kept up to date. ", "Sign in"); return; }
    away.stream(Boolean(what.away), what.crowded);
    if (!what.away) tell(what);
  };
  const page = { after, job, hear };
  const alone = () => {
    const stream = new LiveStream(session);
    // a hidden page lets its connection go: a browser has six for all tabs
    const place = () => (document.hidden ? stream.remove(page) : stream.add(page));
    document.addEventListener("visibilitychange", place);
    addEventListener("pagehide", () => stream.remove(page));
    place();
  };
  if (!window.SharedWorker) { alone(); return; }
  const worker = new SharedWorker(live, { name: session });
  worker.onerror = () => { worker.port.close(); alone(); };
  worker.port.onmessage = ({ data }) => hear(data);
  worker.port.postMessage({ after, job });
  addEventListener("pagehide", () => worker.port.postMessage({ leaves: true }));
}

// back from the browser's own cache the stream is gone and the page old
addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });

// --- a job's page; what it does with an event is in jobpage.js
const job = $("#job");

if (job) {
  const handlers = {
    state: (data) => onState(data),
    stage: (data) => onStage(data),
    progress: (data) => onProgress(data),
    metric: (data) => onMetric(data),
    log: (data) => onLog(data),
  };
  // the page holds the events up to this number; the stream may begin before it
  let seen = Number(job.dataset.seq);
  follow({
    after: Number(job.dataset.number),
    job: job.dataset.job,
    hear: ({ kind, data, returned }) => {
      // a part of the page may have been asked for while the service was away
      if (returned) want("status", "charts", "timeline", "attempts");
      if (!kind || data.seq <= seen) return;
      seen = data.seq;
      handlers[kind](data);
    },
  });
}

// --- ask before what cannot be taken back
document.addEventListener("submit", (event) => {
  const question = event.target.dataset.confirm;
  if (question && !confirm(question)) event.preventDefault();
});

// --- what a form asks for is asked once, however often its button is pressed; whoever stops a request and is still
// here after a while may send it again
const AGAIN = 10_000, sent = new WeakMap();
addEventListener("submit", (event) => {
  if (event.defaultPrevented || event.target.method !== "post") return;
  if (performance.now() - (sent.get(event.target) ?? -AGAIN) < AGAIN) event.preventDefault();
  else sent.set(event.target, performance.now());
});
addEventListener("pageshow", () => {
  for (const form of document.forms) sent.delete(form);
});

// --- nor by a reload of the page that answered it
const answered = $("[data-reload]");
if (answered) history.replaceState(null, "", answered.dataset.reload);
