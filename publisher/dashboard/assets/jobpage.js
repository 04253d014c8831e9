// A job's page: what it does with each event, its bar, its charts and its log. Its stream is in dashboard.js.
"use strict";

function announce(text) {
  $("#announcement").textContent = text;
}

function onState(data) {
  announce(`Job ${data.state}`);
  want("status", "charts", "timeline", "attempts");
}

function onStage(data) {
  announce(`${data.stage} ${data.state}`);
  want("status", "timeline");
}

function onProgress(data) {
  const status = $("#status"), box = $("#progress");
  if (data.seq <= Number(status.dataset.seq)) return;
  if (!box || box.dataset.stage !== data.stage || box.dataset.unit !== data.unit) { want("status"); return; }
  const percent = data.total ? Math.min(100, (100 * data.done) / data.total) : 0;
  $("#percent").textContent = `${percent.toFixed(0)} %`;
  const what = isBytes(data.unit) ? data.unit.replace(/^bytes ?/, "") : data.unit;
  $("#amount").textContent = `${amount(data.done, data.unit)} of ${amount(data.total, data.unit)} ${what}`.trim();
}

// --- the bar of the whole job: the server reckons, now and then
const ASK_SECONDS = 5;
let furthest = { attempt: "", percent: 0 };

// What was reckoned may be reckoned anew and turn out longer: the words say so, but a bar does not go back.
function advance(percent) {
  const { attempt } = $("#progress").dataset;
  if (furthest.attempt !== attempt) furthest = { attempt, percent: 0 };
  const before = Math.floor(furthest.percent / 10);
  furthest.percent = Math.max(furthest.percent, percent);
  $("#whole").value = furthest.percent;
  $("#share").textContent = `${furthest.percent} %`;
  const tens = Math.floor(furthest.percent / 10);
  if (before && tens > before) announce(`${tens * 10} percent, ${$("#left").textContent}`);
}

async function reckon() {
  if (document.hidden || !$("#whole")) return;
  const response = await fetch(`/jobs/${$("#job").dataset.job}/outlook`, { redirect: "error" }).catch(() => null);
  if (!response?.ok || !$("#whole")) return; // the stream knows whether the service is away
  const { percent, left } = await response.json();
  if (percent === null || !$("#whole")) return;
  $("#left").textContent = left;
  advance(percent);
}
setInterval(reckon, ASK_SECONDS * 1000);
// the bar of the stage that runs
setInterval(() => { if (!document.hidden && $("#whole")) want("timeline"); }, 6 * ASK_SECONDS * 1000);
if ($("#whole")) advance($("#whole").value);

// --- charts
const FEW_POINTS = 12; // as in charts.py
const pair = (text) => text.split(" ").map(Number);

// Between steps and values, and a chart's own units; values may be by their logarithms.
function axes(chart) {
  const [[x0, x1], [y0, y1], [left, right, top, bottom]] = [chart.dataset.x, chart.dataset.y, chart.dataset.box].map(pair);
  const [raise, sink] = "log" in chart.dataset ? [Math.log10, (power) => 10 ** power] : [Number, Number];
  const [low, high] = [raise(y0), raise(y1)];
  return {
    holds: (step, value) => step <= x1 && value >= y0 && value <= y1,
    x: (step) => left + ((step - x0) / (x1 - x0)) * (right - left),
    y: (value) => bottom - ((raise(value) - low) / (high - low)) * (bottom - top),
    step: (x) => Math.round(x0 + ((x - left) / (right - left)) * (x1 - x0)),
    value: (y) => sink(low + ((bottom - y) / (bottom - top)) * (high - low)),
  };
}

const at = (line, value, step) => `${line.dataset.label} ${number(value)} at step ${step.toLocaleString("en")}`.trim();

function onMetric(data) {
  if (data.value === null) return;
  const line = [...document.querySelectorAll(".chart .line")].find((one) => one.dataset.series === data.name);
  if (!line) { want("charts"); return; }
  const chart = line.closest(".chart"), axis = axes(chart);
  if (data.step <= Number(line.dataset.last)) {
    // known already: from the page, or a stage that runs again and draws over its old line
    if (data.seq > Number(chart.dataset.seq)) want("charts");
    return;
  }
  if (!axis.holds(data.step, data.value)) { want("charts"); return; }
  const point = line.ownerSVGElement.createSVGPoint();
  [point.x, point.y] = [axis.x(data.step), axis.y(data.value)];
  line.points.appendItem(point);
  const end = line.nextElementSibling;
  end.setAttribute("cx", point.x);
  end.setAttribute("cy", point.y);
  // a line of many points shows none of them
  if (line.points.numberOfItems > FEW_POINTS && !line.classList.contains("points")) {
    for (const place of ["start", "mid", "end"]) line.removeAttribute(`marker-${place}`);
  }
  line.dataset.last = data.step;
  line.dataset.now = at(line, data.value, data.step);
  smooth(line);
  tell(chart);
}

// The last value of each line.
function tell(chart) {
  const axis = axes(chart);
  $("output", chart).textContent = [...chart.querySelectorAll(".line")].map((line) => {
    if (line.dataset.now) return line.dataset.now;
    const last = line.points.getItem(line.points.numberOfItems - 1);
    return at(line, axis.value(last.y), Number(line.dataset.last));
  }).join(" · ");
}

// --- smoothing: an exponential moving average over the raw line, which turns faint; kept by this browser
const choice = $("#smoothing-choice");
const kept = () => { try { return localStorage.getItem("smoothing"); } catch { return null; } };

function smooth(line) {
  const weight = Number(kept() ?? 0), points = line.points;
  const few = points.numberOfItems < 20 || line.hasAttribute("marker-mid");
  line.classList.toggle("raw", weight > 0 && !few);
  let drawn = line.previousElementSibling?.matches(".smooth") ? line.previousElementSibling : null;
  if (!weight || few) { drawn?.remove(); return; }
  if (!drawn) {
    drawn = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
    drawn.setAttribute("class", line.classList.contains("second") ? "smooth second" : "smooth");
    drawn.setAttribute("fill", "none");
    line.before(drawn);
  }
  // a long series is thinned, so that neighbours may be several steps apart: each step counts
  const axis = axes(line.closest(".chart")), { step } = axis;
  let mean = points.getItem(0).y, before = step(points.getItem(0).x), told = [];
  for (const point of points) {
    const share = weight ** Math.max(1, step(point.x) - before);
    mean = share * mean + (1 - share) * point.y;
    before = step(point.x);
    told.push(`${point.x},${mean.toFixed(2)}`);
  }
  drawn.setAttribute("points", told.join(" "));
}

function smoothAll() {
  const select = $("#smoothing"), box = $("#smoothing-choice");
  if (!select) return;
  box.hidden = !$(".chart .line");
  select.value = kept() ?? "0";
  document.querySelectorAll(".chart .line").forEach(smooth);
}

document.addEventListener("change", (event) => {
  if (event.target.id !== "smoothing") return;
  try { localStorage.setItem("smoothing", event.target.value); } catch { /* kept nowhere: the choice is lost */ }
  smoothAll();
});
document.addEventListener("renewed", ({ target }) => {
  if (target.id === "charts") smoothAll();
  if (target.id === "status" && $("#whole")) advance($("#whole").value);
});
smoothAll();

// --- the values under the pointer
function nearest(points, x) {
  let found = points.getItem(0);
  for (const point of points) if (Math.abs(point.x - x) < Math.abs(found.x - x)) found = point;
  return found;
}

let pointed = null;
document.addEventListener("pointermove", (event) => {
  const svg = event.target.closest?.(".chart svg");
  if (pointed && pointed !== svg) {
    $(".pointer", pointed).setAttribute("visibility", "hidden");
    tell(pointed.closest(".chart"));
  }
  pointed = svg;
  if (!svg) return;
  const chart = svg.closest(".chart"), axis = axes(chart), lines = [...svg.querySelectorAll(".line")];
  const wantedX = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse()).x;
  const found = lines.map((line) => nearest(line.points, wantedX));
  const closest = found.reduce((best, one) => (Math.abs(one.x - wantedX) < Math.abs(best.x - wantedX) ? one : best));
  const pointer = $(".pointer", svg);
  pointer.setAttribute("visibility", "visible");
  pointer.setAttribute("transform", `translate(${closest.x} 0)`);
  pointer.querySelectorAll("circle").forEach((circle, place) => {
    circle.setAttribute("cx", found[place].x - closest.x);
    circle.setAttribute("cy", found[place].y);
  });
  const told = lines.map((line, place) => at(line, axis.value(found[place].y), axis.step(found[place].x)));
  $("output", chart).textContent = told.join(" · ");
});

// --- the log
const LOG_LINES = 500;
const log = $("#log"), asked = $("#q");

function holds(message) {
  return message.toLowerCase().includes(asked.value.trim().toLowerCase());
}

function onLog(data) {
  if (log.dataset.attempt && log.dataset.attempt !== $("#progress")?.dataset.attempt) return;
  const box = log.parentElement, atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 24;
  const line = document.createElement("li");
  const time = document.createElement("time"), text = document.createElement("span");
  [time.className, time.dateTime, text.textContent] = ["clock", new Date(data.at * 1000).toISOString(), data.message];
  line.append(time, " ", text);
  localise(line);
  if (data.stage && data.stage !== log.dataset.stage) line.dataset.begins = log.dataset.stage = data.stage;
  line.hidden = !holds(data.message);
  log.append(line);
  while (log.children.length > LOG_LINES) log.firstElementChild.remove();
  if (!line.hidden) $("#log-none").hidden = true;
  if (atEnd) box.scrollTop = box.scrollHeight;
}

// While somebody types, the lines that are here are searched; sending the form searches all of the log.
asked.addEventListener("input", () => {
  let found = 0;
  for (const line of log.children) {
    line.hidden = !holds($("span", line).textContent);
    found += !line.hidden;
  }
  $("#log-none").hidden = found > 0 || !asked.value;
});

log.parentElement.scrollTop = log.parentElement.scrollHeight;
