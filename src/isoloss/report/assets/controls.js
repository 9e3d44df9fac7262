// The controls of the whole page, the link that restores them, and which figure is drawn when.
"use strict";
(() => {
  const { data, axes, dark, draw, refuse, drawn, hasMetric, isFinding, setTheme, say } = window.isoloss;
  const isPlaced = data.first !== null;
  const figures = [...document.querySelectorAll(".panel")].filter((figure) => {
    if (isPlaced || isFinding(figure)) return true;
    refuse(figure, say("No checkpoint has a place on any axis."));
    return false;
  });
  const control = (id) => document.getElementById(id);
  const first = () => ({
    x: data.first, log: Boolean(axes.get(data.first)?.startsLog), metric: "", smooth: "",
    time: data.time[0] ?? null, hidden: new Set(), find: "", pins: [], lang: "", theme: "auto", at: "",
  });
  const state = Object.assign(window.isoloss.state ?? {}, first());
  window.isoloss.state = state;
  const main = document.querySelector("main");
  const inView = new Set();
  const done = new Map(); // figure -> the state it was drawn in
  let working = false;

  // -- what is drawn when

  const look = () => [dark.matches, state.lang, data.version, [...state.hidden]];
  // what studies found is drawn as it was found: of the controls only the runs change it
  const stamp = (figure) =>
    JSON.stringify(isFinding(figure) ? look()
      : [...look(), state.x, state.log, state.metric, state.time, state.smooth, state.pins]);

  const isClosed = (figure) => figure.closest("details.group:not([open])") !== null;
  const isStale = (figure) => !figure.hidden && done.get(figure) !== stamp(figure);
  const idle = () =>
    new Promise((go) => (window.requestIdleCallback ? requestIdleCallback(go) : setTimeout(go, 30)));

  function drawNow(figure) {
    const now = stamp(figure);
    try {
      draw(figure, state);
    } catch (error) {
      console.error(error);
      refuse(figure, say("This figure cannot be drawn: {why}", { why: error.message }));
    }
    done.set(figure, now);
  }

  const isWanted = (figure) => inView.has(figure) && !isClosed(figure) && isStale(figure);
  // collections are only drawn when somebody looks: hundreds of figures cost memory
  const isDue = (figure) => figure.closest("details.group") === null && isStale(figure);

  // what is in view at once, the others when there is time
  async function work() {
    figures.filter(isWanted).forEach(drawNow);
    if (working) return;
    working = true;
    main.setAttribute("aria-busy", "true");
    while (figures.some(isDue)) {
      await idle();
      const figure = figures.find(isDue); // what was due may be drawn by now
      if (figure) drawNow(figure);
    }
    working = false;
    main.setAttribute("aria-busy", "false");
  }

  // -- the link that restores the view

  const plain = first();
  function toHash() {
    const words = new URLSearchParams();
    const put = (name, value, usual) => value !== usual && words.append(name, value);
    put("x", state.x, plain.x);
    put("scale", state.log ? "log" : "linear", axes.get(state.x)?.startsLog ? "log" : "linear");
    for (const name of ["metric", "smooth", "find", "lang", "theme"]) put(name, state[name], plain[name]);
    for (const run of state.hidden) words.append("hide", run);
    for (const pin of state.pins) words.append("pin", pin);
    if (![...words].length) return state.at;
    put("at", state.at, "");
    return words.toString();
  }

  function fromHash() {
    const text = location.hash.slice(1);
    const words = new URLSearchParams(text.includes("=") ? text : "");
    const known = { x: (x) => axes.has(x) && x in data.checkpoints.x, metric: (m) => has("metric", m),
      smooth: (s) => has("smooth", s), theme: (t) => has("theme", t), find: () => true, lang: () => true, at: () => true };
    Object.assign(state, first(), { at: text.includes("=") ? "" : text });
    for (const [name, isKnown] of Object.entries(known)) {
      if (words.has(name) && isKnown(words.get(name))) state[name] = words.get(name);
    }
    const starts = axes.get(state.x)?.startsLog ? "log" : "linear";
    state.log = (words.get("scale") ?? starts) === "log";
    state.hidden = new Set(words.getAll("hide").filter((run) => data.runs.some((one) => one.label === run)));
    state.pins = words.getAll("pin");
    if (state.at) document.getElementById(state.at)?.scrollIntoView();
    document.dispatchEvent(new CustomEvent("isoloss:view"));
  }

  const has = (id, value) => [...(control(id)?.options ?? [])].some((one) => one.value === value);

  function writeHash() {
    const hash = toHash();
    if (hash !== location.hash.slice(1)) {
      history.replaceState(null, "", hash ? `#${hash}` : location.pathname + location.search);
    }
  }

  // -- the controls show the state

  function report() {
    if (!isPlaced) return;
    const parts = [];
    const x = data.checkpoints.x[state.x];
    const absent = x.filter((value) => value === null).length;
    const zeros = state.log ? x.filter((value) => value !== null && value <= 0).length : 0;
    const lacking = figures.filter((figure) => !hasMetric(figure, state)).length;
    if (absent) parts.push(say("{n} of {all} checkpoints have no value on this axis.", { n: absent, all: x.length }));
    if (zeros) parts.push(say("{n} checkpoints at 0 have no place on a logarithmic scale.", { n: zeros }));
    if (lacking) parts.push(say("{n} figures without this score are hidden.", { n: lacking }));
    const text = parts.join(" ");
    // said again only where it changed: it is read aloud
    if (control("status").textContent !== text) control("status").textContent = text;
  }

  const words = (element) => element.textContent.toLowerCase();
  function isFound(text) {
    return state.find.toLowerCase().split(/\s+/).every((word) => text.includes(word));
  }

  // figures of tasks, and the rows of tables that name them
  function filter() {
    for (const figure of figures) {
      const group = figure.closest("details.group")?.querySelector("summary bdi");
      const isTask = figure.dataset.kind === "series" || figure.closest("#explained");
      const text = words(figure.querySelector("figcaption")) + (group ? words(group) : "");
      figure.hidden = !hasMetric(figure, state) || Boolean(isTask && !isFound(text));
    }
    for (const row of document.querySelectorAll("#best tbody tr, #tray .differences tbody tr")) {
      row.hidden = !isFound(words(row));
    }
    const groups = [...document.querySelectorAll("#abilities details.group")];
    for (const group of groups) {
      const left = group.querySelectorAll(".panel:not([hidden])").length;
      group.hidden = left === 0;
      if (state.find && left) group.open = true;
    }
    const left = document.querySelectorAll("#abilities .panel:not([hidden])").length;
    if (control("found")) {
      control("found").textContent = state.find ? say("{n} figures", { n: left }) : "";
    }
  }

  function showState() {
    if (isPlaced) {
      control("x").value = state.x;
      control("scale").value = state.log ? "log" : "linear";
      control("smooth").value = state.smooth;
      if (control("metric")) control("metric").value = state.metric;
      if (control("find").value !== state.find) control("find").value = state.find;
    }
    control("theme").value = state.theme;
    for (const button of document.querySelectorAll(".runs button")) {
      button.setAttribute("aria-pressed", String(!state.hidden.has(button.dataset.run)));
    }
    for (const box of document.querySelectorAll("#models input[type=checkbox]")) {
      const own = runsOf(box);
      const shown = own.filter((run) => !state.hidden.has(run)).length;
      box.checked = shown > 0;
      box.indeterminate = shown > 0 && shown < own.length;
    }
    const models = [...document.querySelectorAll("#models [data-model]")];
    const shown = models.filter((box) => box.checked).length;
    if (control("chosen")) {
      control("chosen").textContent = shown === models.length ? String(shown)
        : say("{n} of {all}", { n: shown, all: models.length });
    }
  }

  function changed() {
    if (data.time.includes(state.x)) state.time = state.x;
    setTheme(state.theme);
    window.isoloss.renderPins(state);
    showState();
    filter();
    report();
    writeHash();
    work();
  }
  window.isoloss.changed = changed;

  // -- what somebody does

  const onChange = (id, change) => control(id)?.addEventListener("change", ({ target }) => {
    change(target.value);
    changed();
  });
  onChange("x", (x) => Object.assign(state, { x, log: axes.get(x).startsLog }));
  onChange("scale", (scale) => { state.log = scale === "log"; });
  for (const name of ["metric", "smooth", "theme"]) onChange(name, (value) => { state[name] = value; });
  control("find")?.addEventListener("input", ({ target }) => {
    state.find = target.value.trim();
    changed();
  });

  function toggle(runs, isShown) {
    for (const run of runs) {
      if (isShown) state.hidden.delete(run);
      else state.hidden.add(run);
    }
    changed();
  }

  for (const button of document.querySelectorAll(".runs button")) {
    button.addEventListener("click", () => toggle([button.dataset.run], state.hidden.has(button.dataset.run)));
  }

  const runsOf = ({ dataset }) => data.runs
    .filter((run) => run.family === dataset.family && (!("model" in dataset) || run.model === dataset.model))
    .map((run) => run.label);
  control("models")?.addEventListener("change", ({ target }) => {
    if (target.type === "checkbox") toggle(runsOf(target), target.checked);
  });
  control("seek")?.addEventListener("input", ({ target }) => {
    const text = target.value.trim().toLowerCase();
    for (const line of control("models").querySelectorAll("li")) {
      line.hidden = !words(line).includes(text);
    }
  });
  for (const [id, isShown] of [["all-models", true], ["no-models", false]]) {
    control(id)?.addEventListener("click", () => {
      const boxes = [...control("models").querySelectorAll("li:not([hidden]) > label [data-model]")];
      toggle(boxes.flatMap(runsOf), isShown);
    });
  }
  document.addEventListener("click", ({ target }) => {
    for (const open of document.querySelectorAll("details.pop[open]")) {
      if (!open.contains(target)) open.open = false;
    }
  });
  document.addEventListener("keydown", (event) => {
    const open = event.key === "Escape" && document.querySelector("details.pop[open]");
    if (open) {
      open.open = false;
      open.querySelector("summary").focus();
    }
  });

  control("link").addEventListener("click", ({ target }) => window.isoloss.copy(location.href, target));
  control("reset").addEventListener("click", () => {
    Object.assign(state, first(), { lang: state.lang, theme: state.theme });
    changed();
  });
  window.addEventListener("hashchange", () => {
    const text = location.hash.slice(1);
    // a link within the page leaves the view as it is
    if (text.includes("=")) fromHash();
    else state.at = text;
    changed();
  });
  dark.addEventListener("change", work);
  document.addEventListener("isoloss:data", () => {
    window.isoloss.read();
    done.clear();
    changed();
  });
  // on paper every figure stands, drawn in the light colours
  const onPaper = () => figures.filter((one) => !one.hidden && !isClosed(one) && isStale(one)).forEach(drawNow);
  window.addEventListener("beforeprint", onPaper);
  matchMedia("print").addEventListener("change", (query) => query.matches && onPaper());

  const observer = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries) {
        if (isIntersecting) inView.add(target);
        else inView.delete(target);
      }
      work();
    },
    { rootMargin: "150px" },
  );
  figures.forEach((figure) => observer.observe(figure));
  fromHash();
  changed();
})();
