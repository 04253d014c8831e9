// What results' pages can do beyond showing them: copy a command, choose variants to compare.
"use strict";

// --- copy: outside of https only the older way is there
async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = document.createElement("textarea");
  area.value = text;
  area.readOnly = true;
  area.className = "hidden";
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  if (!done) throw new Error("not copied");
}

for (const button of document.querySelectorAll(".copyable .copy")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    const label = button.getAttribute("aria-label");
    try {
      await copy($("code", button.parentElement).textContent);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Select and copy by hand";
    }
    button.setAttribute("aria-label", button.textContent);
    button.focus();
    setTimeout(() => { button.textContent = "Copy"; button.setAttribute("aria-label", label); }, 2000);
  });
}

// --- how many are chosen, and that two are the least
const chosen = $("#compare");
if (chosen) {
  const button = $("button", chosen), boxes = document.querySelectorAll("input[form=compare]");
  const count = () => {
    const many = [...boxes].filter((box) => box.checked).length;
    button.disabled = many < 2;
    button.textContent = many < 2 ? "Compare: choose two or more" : `Compare ${many} variants`;
  };
  for (const box of boxes) box.addEventListener("change", count);
  count();
}

// --- a sweep's page is taken anew when one of its jobs changes its state
const sweep = $("#sweep");
if (sweep) {
  let old = false, waiting = null;
  const jobs = new Set(sweep.dataset.jobs.trim().split(" "));
  const renew = () => {
    waiting = null;
    old = document.hidden;
    if (!old) want("sweep", "results");
  };
  const soon = () => { waiting ??= setTimeout(renew, 500); };
  document.addEventListener("visibilitychange", () => { if (old) renew(); });
  follow({
    after: Number(sweep.dataset.number),
    hear: ({ kind, data, returned }) => {
      if (returned || (kind === "state" && jobs.has(data.job_id))) soon();
    },
  });
}
