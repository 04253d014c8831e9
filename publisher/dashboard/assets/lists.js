// Keeps the list of jobs up to date: a line whose job reports something is taken anew, and the whole list, at most every
// few seconds, when jobs come, go or change their state.
"use strict";

const list = $("#jobs");
if (list) {
  const ROWS_EVERY = 500, LIST_EVERY = 4000;
  let listed = -LIST_EVERY, old = false, timer = null, fetching = false;
  const changed = new Set();
  const shown = (id) => $("#jobs").contains(document.getElementById(id));

  const renew = () => {
    timer = null;
    if (document.hidden) { old = true; return; }
    [old, listed] = [false, performance.now()];
    changed.clear();
    want("jobs", "states");
  };
  const soon = () => { timer ??= setTimeout(renew, Math.max(ROWS_EVERY, listed + LIST_EVERY - performance.now())); };

  const renewRows = async () => {
    const ids = [...changed].filter(shown);
    changed.clear();
    if (!ids.length || document.hidden) { old ||= ids.length > 0; return; }
    const query = new URLSearchParams(ids.map((id) => ["id", id]));
    const fresh = await take(`/jobs/rows?${query}`);
    localise(fresh);
    for (const row of [...fresh.querySelectorAll("tr[id]")]) {
      const shownRow = document.getElementById(row.id);
      if (shownRow) swap(shownRow, row);
    }
  };
  const rowsSoon = () => {
    if (fetching) return;
    fetching = true;
    setTimeout(() => renewRows().catch(soon).finally(() => {
      fetching = false;
      if (changed.size) rowsSoon();
    }), ROWS_EVERY);
  };

  document.addEventListener("visibilitychange", () => { if (old && !document.hidden) renew(); });
  // the times that are shown grow old, too
  setInterval(soon, Number(list.dataset.refresh));
  follow({
    after: Number(list.dataset.number),
    hear: ({ kind, data, returned }) => {
      if (returned || kind === "state") soon();
      if (kind && shown(data.job_id)) { changed.add(data.job_id); rowsSoon(); }
    },
  });
}

// --- the overview: its parts anew when something happened, and from time to time, since workers tell nothing of themselves
const overview = $("#overview");
if (overview) {
  const EVERY = 3000;
  let looked = performance.now(), old = false, timer = null;
  const parts = [...overview.querySelectorAll("[id]")].filter((part) => part.matches("section")).map((part) => part.id);
  const renew = () => {
    timer = null;
    if (document.hidden) { old = true; return; }
    [old, looked] = [false, performance.now()];
    want(...parts);
  };
  const soon = () => { timer ??= setTimeout(renew, Math.max(500, looked + EVERY - performance.now())); };
  document.addEventListener("visibilitychange", () => { if (old && !document.hidden) renew(); });
  setInterval(soon, Number(overview.dataset.refresh));
  follow({
    after: Number(overview.dataset.number),
    hear: ({ kind, returned }) => { if (kind || returned) soon(); },
  });
}
