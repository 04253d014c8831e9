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
  for (const element of document.querySelectorAll("[data-since]")) {
    element.textContent = duration(now() - Number(element.dataset.since));
  }
}, 1000);

// --- take parts of the page as the server renders it now
async function refresh(...ids) {
  const response = await fetch(location.href, { headers: { Accept: "text/html" }, redirect: "error" });
  if (!response.ok) throw new Error(`HTTP ${response.status}`);
  const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
  document.title = fresh.title;
  localise(fresh);
  for (const id of ids) {
    const [old, next] = [document.getElementById(id), fresh.getElementById(id)];
    if (!old || !next || old.outerHTML === next.outerHTML) continue;
    const focus = old.contains(document.activeElement) ? document.activeElement : null;
    old.replaceWith(next);
    next.dispatchEvent(new CustomEvent("renewed", { bubbles: true }));
    if (focus) (same(focus, next) ?? heading(next))?.focus({ preventScroll: true });
  }
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

// One refresh at a time; what was asked for meanwhile is fetched after it.
const wanted = new Set();
let refreshing = false;
async function want(...ids) {
  ids.forEach((id) => wanted.add(id));
  if (refreshing) return;
  refreshing = true;
  try {
    while (wanted.size) {
      const parts = [...wanted];
      wanted.clear();
      await refresh(...parts);
    }
  } catch {
    lost();
  } finally {
    refreshing = false;
  }
}

function lost() {
  const notice = $("#connection");
  if (notice) notice.hidden = false;
}

// --- what happens, from the one stream of all tabs (live.js) or, where tabs cannot share, from a stream of this page
function follow({ after, job, hear }) {
  const { session, live } = document.body.dataset;
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

const list = $("#jobs");
if (list) {
  let old = false, waiting = null;
  const renew = () => {
    waiting = null;
    if (document.hidden) { old = true; return; }
    old = false;
    want(list.id);
  };
  const soon = () => { waiting ??= setTimeout(renew, 500); };
  document.addEventListener("visibilitychange", () => { if (old) renew(); });
  // the times that are shown grow old, too
  setInterval(soon, Number(list.dataset.refresh));
  follow({
    after: Number(list.dataset.number),
    hear: ({ kind, returned, closed }) => {
      $("#connection").hidden = !closed;
      if (kind || returned) soon();
    },
  });
}

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
    hear: ({ kind, data, returned, closed }) => {
      $("#connection").hidden = !closed;
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
