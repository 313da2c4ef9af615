"use strict";
// Everything from data becomes text: no markup is made of it, and links are of http and https alone.

const STAGES = ["plan", "fit", "detect", "combine", "validate", "publish"];
const CHUNK_SECONDS = [0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500];
const SILENCE_MS = 40_000;  // the server says something every 15 seconds
const SPARK_POINTS = 180;
const jobs = new Map();     // id -> status
const rates = new Map();    // id -> rows per second, as seen by this page
const views = new Map();    // id -> elements in the list
let order = [];
let token = null;
let lastId = null;
let shown = null;           // id of the job in the details

const byId = (id) => document.getElementById(id);

function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== null) made.setAttribute(name, value);
  made.append(...children.filter((child) => child !== null));
  return made;
}

function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// ------------------------------------------------------------------------------------------ words

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const number = (value) => value === null ? "–" : whole.format(value);
const compact = (value) => value === null ? "–" : Math.abs(value) < 10_000 ? whole.format(value) : short.format(value);

function bytes(value) {
  if (value === null) return "–";
  const unit = value < 1024 ? 0 : Math.min(5, Math.floor(Math.log2(value) / 10));
  return `${(value / 1024 ** unit).toFixed(unit > 1 ? 1 : 0)} ${["B", "KiB", "MiB", "GiB", "TiB", "PiB"][unit]}`;
}

function duration(seconds) {
  if (seconds === null || !Number.isFinite(seconds)) return "–";
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172_800) return `${(seconds / 3600).toFixed(1)} h`;
  return `${Math.round(seconds / 86_400)} days`;
}

const clock = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", second: "2-digit" });
const minute = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
const time = (at) => at === null ? "–" : clock.format(new Date(at));
const between = (start, end) => start === null || end === null ? null : (new Date(end) - new Date(start)) / 1000;
const title = (job) => job.pipeline ?? job.name;
const left = (job) => job.eta_seconds === null || job.final ? "–" : duration(job.eta_seconds);
const latest = (job) => job.alerts.length ? job.alerts[job.alerts.length - 1] : null;

function doing(job) {
  const parts = [];
  if (job.stage !== null) parts.push(job.stage);
  if (job.chunks.total) parts.push(`${number(job.chunks.done)} of ${number(job.chunks.total)} chunks`);
  if (job.percent !== null) parts.push(`${job.percent.toFixed(job.percent < 100 ? 1 : 0)} %`);
  return parts.join(" · ") || job.message || "starting";
}

function state(job) {
  return el("span", { class: "state", "data-state": job.state }, job.state);
}

function link(text, address) {
  let url;
  try {
    url = new URL(address, location.href);
  } catch {
    return null;  // no address, and so no link
  }
  if (!["http:", "https:"].includes(url.protocol)) return null;
  return el("a", { href: url.href, rel: "noreferrer noopener", target: "_blank" }, text);
}

function report(job, text) {
  if (job.links.report === null) return null;
  const path = `/jobs/${encodeURIComponent(job.job_id)}/report`;
  const made = el("a", { href: path, target: "_blank", rel: "noreferrer noopener" }, text);
  // A link takes no headers along.
  const admit = () => {
    if (token !== null) document.cookie = `siftline-token=${token}; path=${path}; max-age=30; samesite=strict`;
  };
  for (const event of ["click", "auxclick", "contextmenu"]) made.addEventListener(event, admit);
  return made;
}

// ------------------------------------------------------------------------------------------- list

function figure(name) {
  const value = el("dd");
  return { value, root: el("div", {}, el("dt", {}, name), value) };
}

function bar(job, className = null) {
  const made = el("progress", { max: "100", class: className, "aria-label": `Progress of ${title(job).slice(0, 200)}` });
  setBar(made, job.percent);
  return made;
}

function setBar(made, percent) {
  if (percent === null) made.removeAttribute("value");
  else made.value = percent;
}

function card(job) {
  const parts = { name: el("bdi"), state: state(job), about: el("p", { class: "small soft clamp" }), bar: bar(job),
    doing: el("p", { class: "small" }), alert: el("p", { class: "alert clamp text" }) };
  const figures = [figure("Rows/s"), figure("Left"), figure("Anomalies"), figure("Memory")];
  const root = el("li", { class: "card" },
    el("div", { class: "top" }, el("h3", { class: "clamp" }, el("a", { href: `#/jobs/${job.job_id}` }, parts.name)), parts.state),
    parts.about, parts.bar, parts.doing, el("dl", { class: "figures" }, ...figures.map((one) => one.root)), parts.alert);
  const update = (now) => {
    const memory = now.workers.reduce((sum, worker) => sum + (worker.memory ?? 0), 0);
    const workers = `${now.workers.length} ${now.workers.length === 1 ? "worker" : "workers"}`;
    say(parts.name, title(now));
    say(parts.state, now.state);
    parts.state.dataset.state = now.state;
    say(parts.about, [now.interval, now.workers.length ? workers : null, now.started && `since ${minute.format(new Date(now.started))}`].filter(Boolean).join(" · "));
    setBar(parts.bar, now.percent);
    say(parts.doing, doing(now));
    [compact(now.rows_per_second), left(now), compact(now.anomalies), memory ? bytes(memory) : "–"]
      .forEach((text, place) => say(figures[place].value, text));
    const alert = latest(now);
    say(parts.alert, alert === null ? "" : `${alert.kind}: ${alert.text}`);
    parts.alert.hidden = alert === null;
  };
  return { root, update, kind: "card" };
}

function row(job) {
  const name = el("bdi");
  const cells = { interval: el("div", { class: "small soft clamp" }), state: state(job), rows: el("td", { class: "number wide" }),
    anomalies: el("td", { class: "number" }), took: el("td", { class: "number wide" }), ended: el("td", { class: "wide" }), report: el("td", { class: "wide" }) };
  const root = el("tr", {},
    el("th", { scope: "row" }, el("a", { href: `#/jobs/${job.job_id}`, class: "clamp" }, name), cells.interval),
    el("td", {}, cells.state), cells.rows, cells.anomalies, cells.took, cells.ended, cells.report);
  const update = (now) => {
    say(name, title(now));
    say(cells.interval, now.interval ?? "");
    say(cells.state, now.state);
    cells.state.dataset.state = now.state;
    say(cells.rows, number(now.rows.total || null));
    say(cells.anomalies, number(now.anomalies));
    say(cells.took, duration(between(now.started, now.ended)));
    say(cells.ended, time(now.ended ?? now.since));
    cells.report.replaceChildren(report(now, "Open") ?? "–");
  };
  return { root, update, kind: "row" };
}

function view(job) {
  const kind = job.final ? "row" : "card";
  let found = views.get(job.job_id);
  if (found === undefined || found.kind !== kind) {
    found = job.final ? row(job) : card(job);
    views.set(job.job_id, found);
  }
  if (found.status !== job) {
    found.update(job);
    found.status = job;
  }
  return found.root;
}

// Elements that stay keep the focus.
function arrange(parent, children) {
  if (children.length === parent.children.length && children.every((child, place) => parent.children[place] === child)) return;
  parent.replaceChildren(...children);
}

function renderList() {
  const known = order.map((id) => jobs.get(id)).filter((job) => job !== undefined);
  const active = known.filter((job) => !job.final);
  const ended = known.filter((job) => job.final);
  for (const id of views.keys()) if (!jobs.has(id)) views.delete(id);
  arrange(byId("active"), active.map(view));
  arrange(byId("ended"), ended.map(view));
  say(byId("active-count"), active.length ? String(active.length) : "");
  say(byId("ended-count"), ended.length ? String(ended.length) : "");
  byId("idle").hidden = active.length > 0;
  say(byId("idle"), known.length ? "Nothing is running." : "No jobs yet.");
  byId("ended-section").hidden = ended.length === 0;
  document.title = active.length ? `${active.length} running – Siftline` : "Siftline";
}

// ---------------------------------------------------------------------------------------- details

function section(name, ...children) {
  return el("section", {}, el("h2", {}, name), ...children);
}

function figures(pairs) {
  return el("dl", { class: "figures" }, ...pairs.filter(([, value]) => value !== null)
    .map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
}

function stages(job) {
  const times = new Map(job.stages.map((one) => [one.stage, one]));
  return el("ol", { class: "stages" }, ...STAGES.map((name) => {
    const at = times.get(name);
    const now = at !== undefined && at.ended === null && !job.final;
    const took = at === undefined ? "" : at.ended === null ? (now ? "now" : "stopped") : duration(between(at.started, at.ended));
    return el("li", { "data-stage": at === undefined ? null : now ? "now" : "done" }, name, el("div", { class: "soft" }, took));
  }));
}

function chunkSeconds(job) {
  const counts = job.chunk_seconds.counts;
  const all = counts.reduce((sum, count) => sum + count, 0);
  if (all === 0) return null;
  const first = counts.findIndex((count) => count > 0);
  const last = counts.length - 1 - [...counts].reverse().findIndex((count) => count > 0);
  const from = first === 0 ? 0 : CHUNK_SECONDS[first - 1];
  const to = last < CHUNK_SECONDS.length ? `${CHUNK_SECONDS[last]} s` : "more";
  const most = Math.max(...counts);
  const bars = counts.slice(first, last + 1).map((count) => {
    const made = el("span");
    made.style.height = `${count / most * 100}%`;
    return made;
  });
  const about = `${number(all)} chunks took ${from} s to ${to}, ${duration(job.chunk_seconds.total / all)} on average`;
  return section("Seconds per chunk", el("div", { class: "panel" },
    el("div", { class: "chart", role: "img", "aria-label": about }, ...bars),
    el("p", { class: "scale" }, el("span", {}, `${from} s`), el("span", {}, to)), el("p", { class: "small soft" }, about)));
}

function spark(job) {
  const seen = rates.get(job.job_id) ?? [];
  if (job.final || seen.length < 3) return null;
  const most = Math.max(...seen, 1);
  const points = seen.map((rate, place) => `${(place / (seen.length - 1) * 300).toFixed(1)},${(58 - rate / most * 54).toFixed(1)}`);
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
  const about = `Rows per second since this page is open: ${compact(seen[seen.length - 1])} now, ${compact(most)} at most`;
  for (const [name, value] of [["viewBox", "0 0 300 60"], ["preserveAspectRatio", "none"], ["class", "spark"], ["role", "img"], ["aria-label", about]]) svg.setAttribute(name, value);
  line.setAttribute("points", points.join(" "));
  line.setAttribute("vector-effect", "non-scaling-stroke");
  svg.append(line);
  return section("Rows per second", el("div", { class: "panel" }, svg, el("p", { class: "small soft" }, about)));
}

function meter(label, share, text) {
  const made = el("progress", { class: "thin", max: "1", "aria-label": label });
  made.value = Math.min(1, share);
  return el("td", {}, text, made);
}

function workers(job) {
  if (job.workers.length === 0) return null;
  const rows = job.workers.map((worker) => {
    const limit = worker.memory_limit ? ` of ${bytes(worker.memory_limit)}` : "";
    return el("tr", {}, el("th", { scope: "row", class: "mono text" }, worker.address),
      worker.cpu === null ? el("td", {}, "–") : meter("CPU", worker.cpu / 100, `${Math.round(worker.cpu)} %`),
      worker.memory === null ? el("td", {}, "–") : meter("Memory", worker.memory_limit ? worker.memory / worker.memory_limit : 0, `${bytes(worker.memory)}${limit}`),
      el("td", { class: "number wide" }, bytes(worker.spilled)));
  });
  const head = el("tr", {}, el("th", { scope: "col" }, "Worker"), el("th", { scope: "col" }, "CPU"),
    el("th", { scope: "col" }, "Memory"), el("th", { scope: "col", class: "number wide" }, "Spilled"));
  return section(`Workers (${job.workers.length})`, el("table", {}, el("thead", {}, head), el("tbody", {}, ...rows)));
}

function alerts(job) {
  if (job.alerts.length === 0) return null;
  const items = [...job.alerts].reverse().map((alert) => el("li", {}, el("time", { datetime: alert.at, class: "soft" }, time(alert.at)),
    el("strong", { class: "text" }, alert.kind), el("span", { class: "text" }, alert.text)));
  return section("Alerts", el("ol", { class: "alerts panel" }, ...items));
}

function facts(job) {
  const pairs = [["Job", job.job_id], ["Run", job.flow_run_id], ["State of the run", job.prefect_state], ["Source", job.source],
    ["Output", job.output], ["Size", job.size_bytes === null ? null : bytes(job.size_bytes)], ["Due", job.due === null ? null : time(job.due)],
    ["Started", time(job.started)], ["Ended", job.ended === null ? null : time(job.ended)], ["Last sign of life", time(job.updated)]];
  return section("Facts", el("dl", { class: "facts panel" }, ...pairs.filter(([, value]) => value !== null)
    .flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, el("bdi", {}, value))])));
}

function detail(job) {
  const counts = job.chunks;
  const optional = (value, text) => value ? text ?? number(value) : null;
  const share = (done, total) => done === total ? number(total) : `${compact(done)} of ${compact(total)}`;
  const numbers = [["Rows", share(job.rows.done, job.rows.total)], ["Rows/s now", job.final ? null : compact(job.rows_per_second)],
    ["Rows/s on average", compact(job.average_rows_per_second)], ["Left", job.final ? null : left(job)], ["Anomalies", number(job.anomalies)],
    ["Threshold", job.threshold === null ? null : job.threshold.toPrecision(5)], ["Rejected rows", optional(job.rows.rejected)],
    ["Chunks", share(counts.done, counts.total)], ["Reused", optional(counts.reused)], ["Retried", optional(counts.retried)],
    ["Split", optional(counts.split)], ["Failed", optional(counts.failed)], ["Recoveries", optional(job.recoveries)],
    ["Waited", optional(job.queue_seconds, duration(job.queue_seconds))], ["Took", job.final ? duration(between(job.started, job.ended)) : null]];
  const parts = [
    job.message === null ? null : el("p", { class: "text" }, job.message),
    job.error === null ? null : el("p", { class: "error" }, job.error),
    el("div", { class: "panel" }, el("p", { class: "small" }, doing(job)), bar(job), figures(numbers)),
    section("Stages", stages(job)), el("div", { class: "two" }, ...[spark(job), chunkSeconds(job)].filter(Boolean)),
    workers(job), alerts(job), facts(job)];
  return parts.filter(Boolean);
}

function renderJob() {
  const job = jobs.get(shown);
  const place = byId("job");
  if (place.dataset.job !== shown) {
    place.dataset.job = shown;
    const name = el("bdi");
    const heading = el("h1", { tabindex: "-1", class: "clamp" }, name);
    const parts = { name, state: el("span", { class: "state" }), interval: el("p", { class: "soft small" }), links: el("p", { class: "links" }), body: el("div") };
    place.parts = parts;
    place.replaceChildren(el("a", { href: "#", class: "back" }, "← All jobs"), el("div", { class: "top" }, heading, parts.state), parts.interval, parts.links, parts.body);
    heading.focus({ preventScroll: true });
    scrollTo(0, 0);
  }
  const { parts } = place;
  if (place.status === job && job !== undefined) return;
  place.status = job;
  if (job === undefined) {
    say(parts.name, "No such job");
    parts.links.hidden = parts.state.hidden = true;
    parts.body.replaceChildren(el("p", { class: "quiet" }, "It is not among the newest jobs of the checkpoint."));
    return;
  }
  say(parts.name, title(job));
  say(parts.state, job.state);
  parts.state.dataset.state = job.state;
  say(parts.interval, job.interval ?? "");
  const links = [report(job, "Report"), job.links.run && link("Run in Prefect", job.links.run), job.links.dashboard && link("Dask dashboard", job.links.dashboard)].filter(Boolean);
  const key = JSON.stringify(job.links);
  if (parts.links.dataset.key !== key) {
    parts.links.dataset.key = key;
    parts.links.replaceChildren(...links);
  }
  parts.links.hidden = links.length === 0;
  parts.state.hidden = false;
  parts.body.replaceChildren(...detail(job));
  document.title = `${title(job).slice(0, 60)} – Siftline`;
}

function render() {
  byId("list").hidden = shown !== null;
  byId("job").hidden = shown === null;
  renderList();
  if (shown !== null) renderJob();
  else byId("job").dataset.job = "";
}

function route() {
  const found = /^#\/jobs\/([0-9a-f]+)$/.exec(location.hash);
  shown = found === null ? null : found[1];
  if (lastId !== null) render();
}

// ------------------------------------------------------------------------------------- connection

function connection(name, text) {
  byId("connection").dataset.state = name;
  say(byId("connection"), text);
}

function take(event, data) {
  if (event === "jobs") {
    order = data;
    for (const id of [...jobs.keys()]) if (!data.includes(id)) jobs.delete(id);
  } else if (event === "status") {
    jobs.set(data.job_id, data);
    const seen = rates.get(data.job_id) ?? [];
    rates.set(data.job_id, data.final ? [] : [...seen, data.rows_per_second ?? 0].slice(-SPARK_POINTS));
  } else if (event === "problem") {
    byId("problem").hidden = data === null;
    say(byId("problem"), data === null ? "" : `The jobs cannot be read, and are shown as they were: ${data}`);
  } else if (event === "read") {
    render();
  }
}

async function follow() {
  const headers = { Accept: "text/event-stream" };
  if (token !== null) headers.Authorization = `Bearer ${token}`;
  if (lastId !== null) headers["Last-Event-ID"] = lastId;
  const abort = new AbortController();
  let silence = setTimeout(() => abort.abort(), SILENCE_MS);
  try {
    const response = await fetch("/events", { headers, signal: abort.signal, cache: "no-store" });
    if (response.status === 401) return "denied";
    if (!response.ok) throw new Error(`status ${response.status}`);
    connection("live", "Live");
    byId("login").hidden = true;
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return "ended";
      clearTimeout(silence);
      silence = setTimeout(() => abort.abort(), SILENCE_MS);
      const events = (rest + value).split("\n\n");
      rest = events.pop();
      for (const text of events) {
        const fields = Object.fromEntries(text.split("\n").map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 2)]));
        if ("id" in fields) lastId = fields.id;
        if ("data" in fields) take(fields.event, JSON.parse(fields.data));
      }
    }
  } finally {
    clearTimeout(silence);
  }
}

async function run() {
  let wait = 500;
  for (;;) {
    const began = Date.now();
    const outcome = await follow().catch(() => "lost");
    if (outcome === "denied") {
      sessionStorage.removeItem("token");
      connection("lost", token === null ? "A token is needed" : "The token is wrong");
      for (const part of ["list", "job"]) byId(part).hidden = true;
      byId("login").hidden = false;
      return;
    }
    connection("lost", `Connection lost at ${clock.format(new Date())}, reconnecting`);
    wait = Date.now() - began > 5000 ? 500 : Math.min(wait * 2, 10_000);
    await new Promise((resolve) => setTimeout(resolve, wait));
  }
}

function start(given) {
  token = given;
  if (token !== null) sessionStorage.setItem("token", token);
  connection("wait", "Connecting");
  run();
}

byId("login").addEventListener("submit", (event) => {
  event.preventDefault();
  start(byId("token").value.trim().replace(/^.*#token=/, ""));
  byId("token").value = "";
});
addEventListener("hashchange", route);
const given = /^#token=(.+)$/.exec(location.hash);
if (given !== null) history.replaceState(null, "", location.pathname);  // not into the history, nor a bookmark
route();
start(given === null ? sessionStorage.getItem("token") : given[1]);
