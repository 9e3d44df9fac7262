// Pinned checkpoints side by side, and what the second differs from the first in.
"use strict";
(() => {
  const { data, named, say, scoresOf, factsOf } = window.isoloss;
  const MOST = 4;
  const tray = document.getElementById("tray");
  const toTray = document.getElementById("to-tray"); // the tray may be far above what is looked at
  const part = (name) => tray.querySelector(name);
  let asked = 0; // of a server: an answer to an older question is thrown away

  const element = (tag, text, attributes = {}) => {
    const one = document.createElement(tag);
    if (text !== undefined) one.textContent = text;
    for (const [name, value] of Object.entries(attributes)) one.setAttribute(name, value);
    return one;
  };
  const inText = (text) => {
    const cell = document.createElement("bdi");
    cell.textContent = text;
    return cell;
  };

  function row(tag, texts) {
    const line = document.createElement("tr");
    line.append(...texts.map((text, i) => {
      const cell = element(i === 0 ? "th" : tag, undefined, i === 0 ? { scope: "row" } : {});
      cell.append(text instanceof Node ? text : inText(text));
      return cell;
    }));
    return line;
  }

  function head(texts) {
    const line = document.createElement("tr");
    line.append(...texts.map((text) => {
      const cell = element("th", undefined, { scope: "col" });
      cell.append(text instanceof Node ? text : inText(text));
      return cell;
    }));
    return line;
  }

  function fill(table, heads, rows) {
    table.tHead.replaceChildren(head(heads));
    table.tBodies[0].replaceChildren(...rows.map((texts) => row("td", texts)));
  }

  function pinHead(name, i) {
    const holder = document.createElement("span");
    const button = element("button", "\u00d7", { type: "button", "aria-label": say("Unpin {name}", { name }) });
    button.addEventListener("click", () => window.isoloss.pin(name));
    holder.append(element("b", `${i + 1} `), inText(name), " ", button);
    return holder;
  }

  function facts(pins) {
    const columns = pins.map((name) => factsOf(named.get(name)));
    fill(part(".pinned"), ["", ...pins.map(pinHead)],
      columns[0].map(([label], i) => [label, ...columns.map((column) => column[i][1])]));
  }

  const digits = (value) => (value === null || value === undefined ? "\u2013" : String(Number(value.toPrecision(4))));
  const spread = (value, stderr) =>
    stderr === null ? digits(value) : `${digits(value)} \u00b1 ${stderr.toPrecision(2)}`;

  // from what the page holds: the errors of both add up, as if each had been asked other documents
  function unpaired(a, b, state) {
    return data.series.flatMap((series, nth) => {
      const metric = state.metric || Object.keys(series.metrics)[0];
      if (!series.metrics[metric]) return [];
      const scores = scoresOf(series.metrics[metric]);
      const [first, second] = [a, b].map((name) => scores.find((one) => one.point === named.get(name)));
      if (!first || !second || first.y === null || second.y === null) return [];
      const known = first.stderr !== null && second.stderr !== null;
      const stderr = known ? Math.hypot(first.stderr, second.stderr) : null;
      const figure = document.getElementById(`series-${nth}`);
      const title = figure?.querySelector("h4")?.textContent ?? String(nth);
      const detail = figure?.querySelector(".detail")?.textContent;
      return [[detail ? `${title}, ${detail}` : title, metric, spread(first.y, first.stderr),
        spread(second.y, second.stderr), spread(second.y - first.y, stderr)]];
    });
  }

  const paired = (rows) => rows.map((one) => [
    one.task, one.metric, digits(one.a), digits(one.b), digits(one.difference),
    one.low === null ? "\u2013" : `${digits(one.low)} ${say("to")} ${digits(one.high)}`,
    one.n === null ? "\u2013" : String(one.n), one.verdict ?? "",
  ]);

  const quoted = (word) => (/^[\w@.\/:+-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`);
  function commandName(name) {
    const point = named.get(name);
    const { run, place } = data.checkpoints;
    return quoted(`${data.runs[run[point]].asked}@${place[point]}`);
  }

  async function fromServer(a, b) {
    const { base } = window.isoloss.live;
    const query = new URLSearchParams({ a, b });
    const answer = await fetch(`${base}compare?${query}`, { credentials: "same-origin" });
    const found = await answer.json().catch(() => ({}));
    if (!answer.ok) throw new Error(found.what ?? `${answer.status}`);
    return Array.isArray(found) ? found : found.rows;
  }

  async function compare(pins, state) {
    const mine = ++asked;
    const [a, b] = pins;
    part(".command code").textContent = `isoloss compare RUN ${commandName(a)} ${commandName(b)}`;
    const heads = ["task", "score", a, b, "difference"].map((text, i) => (i === 2 || i === 3 ? text : say(text)));
    const table = part(".differences");
    const showUnpaired = (why) => {
      fill(table, heads, unpaired(a, b, state));
      part(".how").textContent = [why, say("Unpaired: the standard errors of both are added as if each had been asked other documents. The paired difference, document by document, is sharper; this command gives it:")].filter(Boolean).join(" ");
    };
    if (!window.isoloss.live) return showUnpaired("");
    part(".how").textContent = say("Asking for the paired differences.");
    try {
      const rows = await fromServer(a, b);
      if (mine !== asked) return;
      fill(table, [...heads, say("95% interval"), "n", say("verdict")], paired(rows));
      part(".how").textContent = say("Paired, document by document.");
    } catch (error) {
      if (mine === asked) showUnpaired(say("The server did not compare them ({why}).", { why: error.message }));
    }
  }

  function render(state) {
    const pins = state.pins;
    tray.hidden = pins.length === 0;
    toTray.hidden = tray.hidden;
    toTray.querySelector("span").textContent = pins.length;
    part(".pair").hidden = pins.length < 2;
    if (pins.length) facts(pins);
    if (pins.length > 1) compare(pins, state);
    else asked += 1;
  }

  // pins or unpins; of too many the oldest goes
  window.isoloss.pin = (name) => {
    const { state } = window.isoloss;
    if (state.pins.includes(name)) state.pins = state.pins.filter((one) => one !== name);
    else state.pins = [...state.pins, name].slice(-MOST);
    window.isoloss.changed();
  };
  window.isoloss.renderPins = (state) => {
    state.pins = state.pins.filter((name) => named.has(name)).slice(0, MOST);
    render(state);
  };
  part(".clear").addEventListener("click", () => {
    window.isoloss.state.pins = [];
    window.isoloss.changed();
  });
  part(".swap").addEventListener("click", () => {
    const { state } = window.isoloss;
    state.pins = [...state.pins.slice(1), state.pins[0]];
    window.isoloss.changed();
  });
  part(".copy").addEventListener("click", (event) =>
    window.isoloss.copy(part(".command code").textContent, event.target));
})();
