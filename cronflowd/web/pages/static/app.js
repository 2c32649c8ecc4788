// What makes the pages live. Each of them is whole without it.
"use strict";
(() => {
  const root = document.documentElement;
  root.classList.add("js");
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const one = (selector, within = document) => within.querySelector(selector);

  // What was done is told once: not again to whoever comes back, or loads the page anew.
  const here = new URL(location);
  if (here.searchParams.has("done")) {
    here.searchParams.delete("done");
    history.replaceState(null, "", here);
  }

  // --- parts that fetch themselves anew when something has happened ---
  let fetching = false, again = false, last = 0, pause = 1500, leaving = new AbortController();
  async function refresh() {
    if (fetching) { again = true; return; }
    fetching = true;
    try {
      await new Promise((done) => setTimeout(done, Math.max(0, last + pause - Date.now())));
      last = Date.now();
      const answer = await fetch(location.href, { headers: { "X-Live": "1" }, signal: leaving.signal });
      // To where one signs in: nothing is filled in again then, so nobody is taken there unasked.
      if (answer.redirected) one("#gone").hidden = false;
      if (!answer.ok || answer.redirected) return;
      one("#gone").hidden = true;
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      // What takes long is asked for seldom: a page on a wall is no load.
      pause = Math.max(1500, 10 * (Date.now() - last));
      for (const old of all("[data-live]")) {
        const fresh = page.getElementById(old.id);
        // Nothing is taken from under somebody's hands.
        if (!fresh || old.contains(document.activeElement) && old.matches(":focus-within:has(input, select)")) continue;
        if (old.innerHTML !== fresh.innerHTML || old.className !== fresh.className) {
          const focused = old.contains(document.activeElement) && document.activeElement.getAttribute("href");
          const scrolled = all("pre.out", old).map((each) => each.scrollTop);
          old.className = fresh.className;
          old.innerHTML = fresh.innerHTML;
          all("pre.out", old).forEach((each, at) => { each.scrollTop = scrolled[at] ?? each.scrollHeight; });
          if (focused) one(`[href="${CSS.escape(focused)}"]`, old)?.focus();
        }
      }
      document.title = page.title;
    } catch { /* the next change tries again */ } finally {
      fetching = false;
      if (again) { again = false; refresh(); }
    }
  }
  // The page is as it was at that record of the journal: what has happened since is told.
  let source = null, seq = one(".live")?.dataset.seq;
  function listen() {
    const wanted = !document.hidden && one("[data-live]") && one(".live");
    if (wanted && !source) {
      source = new EventSource(`/api/v1/events?since=${parseInt(seq)}`);
      source.onopen = () => { one(".live").hidden = false; };
      source.onmessage = (event) => { seq = event.lastEventId || seq; refresh(); };
      source.onerror = () => {
        one(".live").hidden = true;
        if (source?.readyState !== EventSource.CLOSED) return;
        // Refused: for good where one is signed out, else for a while.
        source = null;
        refresh();
        setTimeout(() => { if (one("#gone").hidden) listen(); }, 10000);
      };
    } else if (!wanted && source) {
      // A browser has six connections to one place for all its tabs: those that nobody sees give theirs back.
      source.close();
      source = null;
    }
  }
  document.addEventListener("visibilitychange", () => { listen(); if (!document.hidden && last) refresh(); });
  addEventListener("pagehide", () => { source?.close(); source = null; });
  // What a form does may end what this page is about: it is not asked for again, unless somebody stays on it or goes back.
  // Nor is a form sent twice by two clicks.
  let sent = null;
  const stay = () => { leaving = new AbortController(); sent = null; };
  addEventListener("submit", (event) => {
    if (sent === event.target) { event.preventDefault(); return; }
    sent = event.target;
    leaving.abort();
    setTimeout(stay, 5000);
    keep(event.target);
  });
  addEventListener("pageshow", (event) => { if (event.persisted) { stay(); listen(); refresh(); } });

  // --- what was sent and not done, since one was signed in no longer or the daemon was away, is filled in again ---
  const KEPT = "sent", LOST = "lost"; // kept by the browser while this tab is open, for whoever typed it
  const who = () => one(".who b")?.textContent;
  const fields = (form) => [...form.elements].filter((each) => each.name && each.name !== "csrf" && each.type !== "submit");
  function keep(form) {
    if (form.method !== "post" || one("[type=password]", form)) return;
    for (const each of all("[data-for][hidden] :is(input, textarea)", form)) each.value = ""; // they mean nothing to this type
    const values = fields(form).map((each) => [each.name, each.type === "checkbox" ? each.checked : each.value]);
    try { sessionStorage.setItem(KEPT, JSON.stringify([who(), form.getAttribute("action"), values])); } catch { /* too long to be kept */ }
  }
  function fill() {
    const kept = sessionStorage.getItem(KEPT);
    if (!kept) return;
    // To sign in, and to tell that something is away, are pages of nobody.
    if (document.body.matches(".guest")) { sessionStorage.setItem(LOST, "yes"); return; }
    const [name, action, values] = JSON.parse(kept), isLost = sessionStorage.getItem(LOST) && name === who();
    sessionStorage.removeItem(KEPT);
    sessionStorage.removeItem(LOST);
    const form = all("form[method=post]").findLast((each) => each.getAttribute("action") === action);
    if (!isLost || !form || !one(":is(input, textarea, select):not([type=hidden])", form)) return;
    for (const [key, value] of values) {
      const field = form.elements[key];
      if (!field || field.value === value) continue;
      if (field.type === "checkbox") field.checked = value; else field.value = value;
      field.closest("details")?.setAttribute("open", "");
    }
    for (const each of all("[data-types], [data-preview]", form)) each.dispatchEvent(new Event(each.matches("select") ? "change" : "input"));
    const note = document.createElement("p");
    note.className = "note warn";
    note.setAttribute("role", "status");
    note.textContent = "What you sent was perhaps not done. It stands here again.";
    form.before(note);
  }

  // --- a run's output as it comes: what has come meanwhile is laid out together, and the page keeps its end ---
  const MAX_LINES = 2000;
  function stream(out) {
    const open = new Map();
    let from = new EventSource(out.dataset.stream);
    let begun = false, rows = [], timer = 0;
    const follow = one("[data-follow]");
    const show = () => {
      clearTimeout(timer);
      timer = 0;
      if (!begun && rows.length) { out.textContent = ""; open.clear(); begun = true; }
      const fresh = document.createDocumentFragment();
      for (const row of rows.splice(0).slice(-MAX_LINES)) {
        let line = open.get(row.fd);
        if (line && line.again) line.node.innerHTML = row.html;
        else if (line) line.node.insertAdjacentHTML("beforeend", row.html);
        else {
          const node = document.createElement("span");
          node.className = `l fd${row.fd}`;
          node.innerHTML = row.html;
          fresh.append(node);
          line = { node };
        }
        if (row.open) open.set(row.fd, { node: line.node, again: row.again });
        else { line.node.append("\n"); open.delete(row.fd); }
      }
      out.append(fresh);
      for (let over = out.childElementCount - MAX_LINES; over > 0; over--) out.firstElementChild.remove();
      if (!follow || follow.checked) out.scrollTop = out.scrollHeight;
    };
    from.onopen = () => { begun = false; rows = []; };
    from.addEventListener("line", (event) => {
      rows.push(JSON.parse(event.data));
      timer ||= setTimeout(show, 50);
    });
    from.addEventListener("end", () => {
      from.close();
      show();
      all("[data-stream-end]").forEach((each) => { each.textContent = "It has ended."; });
      refresh();
    });
    out.addEventListener("wheel", () => { if (follow) follow.checked = out.scrollHeight - out.scrollTop - out.clientHeight < 40; }, { passive: true });
  }
  function search(field) {
    const out = one("#out"), count = one("[data-count]");
    field.addEventListener("input", () => {
      const words = field.value.toLowerCase();
      let found = 0;
      for (const line of all(".l", out)) {
        const is = !words || line.textContent.toLowerCase().includes(words);
        line.classList.toggle("away", !is);
        found += words && is ? 1 : 0;
      }
      count.textContent = words ? `${found} ${found === 1 ? "line" : "lines"}` : "";
    });
  }

  // --- the form of a job ---
  function preview(field) {
    const place = one("#preview"), zone = one("#f-tz");
    let timer = 0, asked = 0;
    const ask = () => {
      clearTimeout(timer);
      timer = setTimeout(async () => {
        const mine = ++asked;
        const words = new URLSearchParams({ schedule: field.value, tz: zone.value });
        const answer = await fetch(`${field.dataset.preview}?${words}`).catch(() => null);
        if (answer?.ok && mine === asked) place.innerHTML = await answer.text();
      }, 200);
    };
    [field, zone].forEach((each) => each.addEventListener("input", ask));
  }
  function types(choice) {
    const show = () => {
      const said = choice.selectedOptions[0];
      one("[data-command-label]").textContent = said.dataset.label;
      one("[data-command-hint]").textContent = said.dataset.hint;
      one("#f-command").placeholder = said.dataset.like;
      for (const part of all("[data-for]")) part.hidden = !part.dataset.for.split(" ").includes(choice.value);
    };
    choice.addEventListener("change", show);
    show();
  }

  // --- charts: what the table beside them says ---
  function plot(place) {
    if (!window.uPlot) return;
    const colour = (name) => { place.style.color = `var(${name})`; return getComputedStyle(place).color; };
    const rows = all(`#${place.dataset.of} tbody tr[data-x]`).reverse();
    const numbers = (key) => rows.map((row) => Number(one(`[data-key="${key}"]`, row)?.dataset.y ?? 0));
    const days = rows.map((row) => Date.parse(row.dataset.x) / 1000);
    const day = uPlot.fmtDate("{D} {MMM}");
    const axis = { stroke: colour("--soft"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "12px system-ui" };
    const bars = uPlot.paths.bars({ size: [0.7, 28], align: 0 });
    const when = { label: "day", value: (_, at) => (at === null ? "–" : day(new Date(at * 1000))) };
    let data, series;
    if (place.dataset.plot === "durations") {
      const points = rows.filter((row) => row.dataset.y !== "").sort((a, b) => Date.parse(a.dataset.x) - Date.parse(b.dataset.x));
      if (points.length < 2) { place.remove(); return; }
      const bad = (row) => !["ok", "running", "sent"].includes(row.dataset.state);
      data = [points.map((row) => Date.parse(row.dataset.x) / 1000), points.map((row) => (bad(row) ? null : Number(row.dataset.y))), points.map((row) => (bad(row) ? Number(row.dataset.y) : null))];
      const dots = (label, stroke) => ({ label, stroke, paths: () => null, points: { show: true, size: 8, fill: stroke, stroke } });
      series = [when, dots("took, s", colour("--fill-good")), dots("failed after, s", colour("--fill-bad"))];
    } else if (place.dataset.plot === "days") {
      const parts = [["ok", "--fill-good", "well"], ["failed", "--fill-bad", "failed"], ["missed", "--fill-warn", "missed"]];
      const found = parts.map(([key]) => numbers(key));
      ["timeout", "lost"].forEach((key) => numbers(key).forEach((value, at) => { found[1][at] += value; }));
      // Bars on each other: the highest is drawn first.
      const sums = found.map((_, upto) => found[0].map((__, at) => found.slice(0, upto + 1).reduce((sum, part) => sum + part[at], 0)));
      data = [days, ...sums.reverse()];
      series = [when, ...parts.reverse().map(([, name, label], at) => ({ label, fill: colour(name), stroke: colour(name), width: 0, paths: bars, points: { show: false }, value: (_, __, ___, index) => (index === null ? "–" : found[found.length - 1 - at][index]) }))];
    } else {
      const good = numbers("ok"), bad = ["failed", "timeout", "lost"].map(numbers);
      data = [days, good.map((value, at) => { const whole = value + bad.reduce((sum, part) => sum + part[at], 0); return whole ? (100 * value) / whole : null; })];
      series = [when, { label: "percent", stroke: colour("--accent"), width: 2, points: { show: true, size: 5 }, spanGaps: true }];
    }
    const tall = place.classList.contains("tall");
    const made = new uPlot({
      width: place.clientWidth, height: tall ? 250 : 170, series, axes: [{ ...axis, values: (_, ticks) => ticks.map((each) => day(new Date(each * 1000))) }, { ...axis, size: 44 }],
      scales: { y: { range: (_, low, high) => (place.dataset.plot === "success" ? [Math.max(0, Math.min(90, low - 5)), 100] : [0, high * 1.08 || 1]) } },
      legend: { live: true }, cursor: { y: false },
    }, data, place);
    place.setAttribute("role", "img");
    place.setAttribute("aria-label", `${place.dataset.title}; the table tells the same`);
    new ResizeObserver(() => made.setSize({ width: place.clientWidth, height: tall ? 250 : 170 })).observe(place);
  }

  // --- small things ---
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.target.closest("input, textarea, select")) return;
    const field = one('[data-key="/"]');
    if (field) { event.preventDefault(); field.focus(); field.select(); }
  });
  document.addEventListener("click", async (event) => {
    const copy = event.target.closest("[data-copy]");
    if (copy) { await navigator.clipboard.writeText(copy.dataset.copy); copy.firstChild.textContent = "Copied"; }
    const fill = event.target.closest("[data-fill]");
    if (fill) { const field = document.getElementById(fill.dataset.fill); field.value = fill.dataset.value; field.dispatchEvent(new Event("input")); field.focus(); }
  });
  document.addEventListener("change", (event) => {
    if (event.target.matches("[data-submit]")) event.target.form.requestSubmit();
    if (event.target.matches("[data-wrap]")) one("#out").classList.toggle("nowrap", !event.target.checked);
  });
  all(".copy, .ideas, [data-tools]").forEach((each) => { each.hidden = false; });
  all("pre.out").forEach((each) => { each.scrollTop = each.scrollHeight; });
  all("[data-stream]").forEach(stream);
  all("[data-search]").forEach(search);
  all("[data-preview]").forEach(preview);
  all("[data-types]").forEach(types);
  all("[data-plot]").forEach(plot);
  fill();
  listen();
})();
