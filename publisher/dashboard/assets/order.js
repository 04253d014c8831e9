// Forms that make things. A new variant is planned anew as its fields change; without this script a button does it.
"use strict";

const order = document.querySelector("form[data-plan]");

// --- one plan at a time; what was changed meanwhile is planned after it
const PLAN_AFTER = 400;
let timer = null, planning = false, isOld = false;

function changed(event) {
  const was = $("#json-was");
  // the box or the fields: what was changed last counts
  if (event.target.name === "json") was.value = "json";
  else if (event.target.name?.startsWith("recipe.") || event.target.name?.startsWith("part:")) was.value = "fields";
  else if (event.target.name === "gib") return;
  $("#plan").classList.add("is-old");
  clearTimeout(timer);
  timer = setTimeout(plan, PLAN_AFTER);
}

async function plan() {
  if (planning) { isOld = true; return; }
  planning = true;
  try {
    do {
      isOld = false;
      await planOnce();
    } while (isOld);
  } catch (error) {
    // a redirect, to the sign-in page, is an error of fetch's own
    $("#plan-state").textContent = error.status ? "The plan could not be made: press Plan to try again."
      : "Not planned: the service is away, or you are signed out. Sign in in another tab, then press Plan here.";
  } finally {
    planning = false;
  }
}

async function planOnce() {
  const body = new URLSearchParams(new FormData(order)), byJson = $("#json-was").value === "json";
  body.set("do", "plan");
  const answer = await fetch(order.action, { method: "POST", body, redirect: "error", headers: { Accept: "text/html" } });
  if (!answer.ok && answer.status !== 422) throw Object.assign(new Error(`HTTP ${answer.status}`), { status: answer.status });
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  if (isOld) return; // it would undo what was typed meanwhile
  for (const id of ["plan", "faults", "curl"]) putInPlace(id, fresh);
  if (byJson) putInPlace("fields", fresh);
  else $("#f-json").value = fresh.getElementById("f-json").value;
  $("#json-was").value = fresh.getElementById("json-was").value;
  for (const problem of document.querySelectorAll(".problem")) mark(problem, fresh.getElementById(problem.id));
  $("#plan-state").textContent = $("#faults").hidden ? "Planned." : $("#faults h2").textContent;
}

function putInPlace(id, fresh) {
  const [old, next] = [document.getElementById(id), fresh.getElementById(id)];
  if (old.tagName === "DETAILS") next.open = old.open;
  if (id === "faults") next.removeAttribute("role"); // it is said once, by #plan-state, and not while somebody types
  old.replaceWith(next);
}

function mark(problem, fresh) {
  if (!fresh || problem === fresh) return;
  problem.textContent = fresh.textContent;
  problem.hidden = fresh.hidden;
  const control = document.getElementById(problem.id.replace("p-", "f-"));
  if (control?.matches("input, select, textarea")) control.toggleAttribute("aria-invalid", false);
  if (control?.matches("input, select, textarea") && !fresh.hidden) control.setAttribute("aria-invalid", "true");
}

if (order) {
  order.addEventListener("input", changed);
  order.addEventListener("submit", () => clearTimeout(timer));
  // Enter plans, but in the card's size, which is for its button
  order.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.target.name !== "gib") return;
    event.preventDefault();
    order.requestSubmit($("button[value=fits]", order));
  });
}

// --- a form whose answer takes its time says so
for (const form of document.querySelectorAll("form[data-busy]")) {
  form.addEventListener("submit", () => {
    const state = $("[role=status]", form);
    if (state) state.textContent = form.dataset.busy;
  });
}
