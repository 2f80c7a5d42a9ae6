// Keeps what stands in elements with `data-live` as it would be after a reload. Everything works without this script.
"use strict";

const SOONEST = 1000;
const AGAIN = 5000;
const said = document.getElementById("connection");
const regions = () => document.querySelectorAll("[data-live]");
let stream = null;
let changed = false;
let timer = null;
let fetchedAt = Date.now();

// A selection that is being made, and what is being typed, must not be taken away.
function isInUse(region) {
  const selection = getSelection();
  const selects = !selection.isCollapsed && region.contains(selection.anchorNode);
  const active = document.activeElement;
  return selects || (region.contains(active) && /^(INPUT|TEXTAREA|SELECT)$/.test(active.tagName));
}

function keyOf(element) {
  return element.getAttribute("href") ?? element.getAttribute("aria-label") ?? element.textContent;
}

function replace(region, fresh) {
  const place = document.importNode(fresh, true);
  if (region.innerHTML === place.innerHTML) return;
  const active = region.contains(document.activeElement) ? document.activeElement : null;
  const open = [...region.querySelectorAll("details")].map((details) => details.open);
  const scrolled = [...region.querySelectorAll(".wide")].map((box) => box.scrollLeft);
  region.replaceChildren(...place.childNodes);
  region.querySelectorAll("details").forEach((details, n) => { details.open = open[n] ?? false; });
  region.querySelectorAll(".wide").forEach((box, n) => { box.scrollLeft = scrolled[n] ?? 0; });
  if (active) {
    const same = [...region.querySelectorAll(active.tagName)].find((each) => keyOf(each) === keyOf(active));
    same?.focus({ preventScroll: true });
  }
}

async function refresh() {
  let pause = SOONEST;
  if (changed && !document.hidden) {
    changed = false;
    fetchedAt = Date.now();
    try {
      const response = await fetch(location.href);
      if (response.redirected) return location.reload();
      if (!response.ok) throw new Error(response.statusText);
      const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
      for (const region of regions()) {
        const its = fresh.getElementById(region.id);
        if (its === null) continue;
        if (!isInUse(region)) replace(region, its);
        else if (region.innerHTML !== its.innerHTML) {
          changed = true;
          pause = AGAIN;
        }
      }
    } catch {
      changed = true;
      pause = AGAIN;
    }
  }
  timer = null;
  if (changed && !document.hidden) soon(pause);
}

function soon(pause) {
  changed = true;
  timer ??= setTimeout(refresh, Math.max(0, fetchedAt + pause - Date.now()));
}

// What happens to one job changes nothing that is shown of another.
function isTold(region, event) {
  if (!region.dataset.live.split(" ").includes(event.type)) return false;
  return !("job" in region.dataset) || region.dataset.job === String(JSON.parse(event.data).job_id);
}

function hear(event) {
  if ([...regions()].some((region) => isTold(region, event))) soon(SOONEST);
}

// A browser has few connections for one host: a page that nobody sees gives its own back.
function listen() {
  if (document.hidden) {
    stream?.close();
    stream = null;
    return;
  }
  if (stream !== null) return;
  stream = new EventSource("/api/v1/events");
  const kinds = new Set([...regions()].flatMap((region) => region.dataset.live.split(" ")));
  for (const kind of kinds) stream.addEventListener(kind, hear);
  stream.addEventListener("reset", () => soon(SOONEST));
  stream.onopen = () => {
    said.textContent = "";
    soon(SOONEST);
  };
  stream.onerror = () => {
    said.textContent = "The connection is lost: what is shown may be old. Trying again…";
    if (stream?.readyState === EventSource.CLOSED) {
      stream = null;
      setTimeout(listen, AGAIN);
      soon(AGAIN);
    }
  };
}

function isTyped(target) {
  return target.closest("input, textarea, select") !== null;
}

document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.target.closest("textarea[data-runs]")?.form.requestSubmit();
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey || isTyped(event.target)) return;
  if (event.key === "/") {
    const filter = document.querySelector("[data-filter]");
    filter?.focus();
    if (filter) event.preventDefault();
  } else if (event.key === "j" || event.key === "k") {
    document.querySelector(`a[rel=${event.key === "j" ? "next" : "prev"}]`)?.click();
  }
});

if (regions().length > 0) {
  document.addEventListener("visibilitychange", listen);
  listen();
}
