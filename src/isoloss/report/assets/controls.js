// The controls of the whole page, and which figure is drawn when: those in view first.
"use strict";
(() => {
  const { data, axes, dark, draw, say, hasMetric, isFinding } = window.isoloss;
  const isPlaced = data.first !== null;
  const figures = [...document.querySelectorAll(".panel")].filter((figure) => {
    if (isPlaced || isFinding(figure)) return true;
    say(figure, "No checkpoint has a place on any axis.");
    return false;
  });
  const control = (id) => document.getElementById(id);
  const state = {
    x: data.first, log: Boolean(axes.get(data.first)?.startsLog), metric: "",
    time: data.time[0] ?? null, hidden: new Set(),
  };
  const inView = new Set();
  const done = new Map(); // figure -> the state it was drawn in
  let working = false;

  // what studies found is drawn as it was found: the controls do not change it
  const stamp = (figure) =>
    isFinding(figure)
      ? String(dark.matches)
      : JSON.stringify([state.x, state.log, state.metric, state.time, [...state.hidden], dark.matches]);

  const isClosed = (figure) => figure.closest("details.group:not([open])") !== null;
  const isStale = (figure) => !figure.hidden && done.get(figure) !== stamp(figure);
  const idle = () =>
    new Promise((go) => (window.requestIdleCallback ? requestIdleCallback(go) : setTimeout(go, 30)));

  // collections are only drawn when somebody looks: hundreds of figures cost memory
  const next = () =>
    figures.find((figure) => inView.has(figure) && !isClosed(figure) && isStale(figure)) ??
    figures.find((figure) => figure.closest("details.group") === null && isStale(figure));

  async function work() {
    if (working) return;
    working = true;
    for (let figure = next(); figure; figure = next()) {
      const now = stamp(figure);
      try {
        await draw(figure, state);
      } catch (error) {
        console.error(error);
        say(figure, `This figure cannot be drawn: ${error.message}`);
      }
      done.set(figure, now);
      if (!inView.has(figure)) await idle();
    }
    working = false;
  }

  function report() {
    if (!isPlaced) return;
    const parts = [];
    const x = data.checkpoints.x[state.x];
    const absent = x.filter((value) => value === null).length;
    const zeros = state.log ? x.filter((value) => value !== null && value <= 0).length : 0;
    const without = figures.filter((figure) => figure.hidden).length;
    if (absent) parts.push(`${absent} of ${x.length} checkpoints have no value on this axis.`);
    if (zeros) parts.push(`${zeros} checkpoints at 0 have no place on a logarithmic scale.`);
    if (without) parts.push(`${without} figures without this score are hidden.`);
    document.querySelector(".status").textContent = parts.join(" ");
  }

  function update() {
    if (data.time.includes(state.x)) state.time = state.x;
    if (isPlaced) control("scale").value = state.log ? "log" : "linear";
    for (const figure of figures) figure.hidden = !hasMetric(figure, state);
    report();
    work();
  }

  control("x")?.addEventListener("change", (event) => {
    state.x = event.target.value;
    state.log = axes.get(state.x).startsLog;
    update();
  });
  control("scale")?.addEventListener("change", (event) => {
    state.log = event.target.value === "log";
    update();
  });
  control("metric")?.addEventListener("change", (event) => {
    state.metric = event.target.value;
    update();
  });
  for (const button of document.querySelectorAll(".runs button")) {
    button.addEventListener("click", () => {
      const { run } = button.dataset;
      if (!state.hidden.delete(run)) state.hidden.add(run);
      button.setAttribute("aria-pressed", String(!state.hidden.has(run)));
      update();
    });
  }
  dark.addEventListener("change", update);
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
  update();
})();
