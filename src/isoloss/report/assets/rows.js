// The numbers of the page: packed columns read, rows of a figure for the chosen x and score, lines smoothed.
"use strict";
window.isoloss = (() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const axes = new Map();
  const places = []; // of a set of checkpoints, once it is read
  const numbersOf = new Map(); // of a packed column, once it is read
  const named = new Map(); // name of a checkpoint -> its place

  const NEAR = 0.4; // of a run's checkpoints, those that a local line is fitted to

  const fill = (text, values = {}) =>
    text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
  // words that a script says; another script may put a translation in
  const say = (text, values) => fill(window.isoloss.words(text), values);

  const isFinding = (figure) => figure.dataset.kind === "finding";
  const isCurve = (figure) => figure.dataset.kind === "curve";
  const source = (figure) =>
    (isCurve(figure) ? data.curves : data.series)[Number(figure.dataset.index)];
  const at = (column, i) => (Array.isArray(column) ? column[i] : column);
  const nameOf = (point) =>
    `${data.runs[data.checkpoints.run[point]].label}@${data.checkpoints.place[point]}`;

  // other data was put in: what was read of the old is forgotten
  function read() {
    places.length = 0;
    for (const memory of [numbersOf, axes, named]) memory.clear();
    for (const axis of data.axes) axes.set(axis.key, axis);
    data.checkpoints.run.forEach((_, point) => named.set(nameOf(point), point));
  }

  // x, score and scale of a figure; loss curves keep to the axes along which a run moves
  function shownBy(figure, state) {
    const key = isCurve(figure) && !data.time.includes(state.x) ? state.time : state.x;
    const log = key === state.x ? state.log : Boolean(axes.get(key)?.startsLog);
    const metrics = source(figure).metrics;
    const metric = isCurve(figure) ? "loss" : state.metric || Object.keys(metrics)[0];
    return { key, log, metric };
  }

  const hasMetric = (figure, state) =>
    isFinding(figure) || shownBy(figure, state).metric in source(figure).metrics;

  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

  // the numbers of a column: one for all, a list, or codes of so many bytes each; null is unknown
  function numbers(column) {
    if (column === null || typeof column !== "object" || Array.isArray(column)) return column;
    if (!numbersOf.has(column)) numbersOf.set(column, decoded(column));
    return numbersOf.get(column);
  }

  function decoded({ width, low, step, codes }) {
    const raw = bytes(codes);
    if (width === 4) {
      return Array.from(new Float32Array(raw.buffer), (one) => (Number.isNaN(one) ? null : one));
    }
    const missing = 256 ** width - 1;
    return Array.from({ length: raw.length / width }, (_, i) => {
      let code = 0;
      for (let place = width - 1; place >= 0; place -= 1) code = 256 * code + raw[width * i + place];
      return code === missing ? null : low + step * code;
    });
  }

  // the checkpoints of a set, a bit each
  function placesOf(nth) {
    places[nth] ??= [...bytes(data.pointSets[nth])].flatMap((byte, i) =>
      [0, 1, 2, 3, 4, 5, 6, 7].filter((bit) => (byte >> bit) & 1).map((bit) => 8 * i + bit));
    return places[nth];
  }

  // every checkpoint that has this score: its value, standard error and number of documents
  function scoresOf(score) {
    const [values, stderrs, counts] = [score.value, score.stderr, score.n].map(numbers);
    return placesOf(score.points).map((point, i) => ({
      point, y: at(values, i), stderr: at(stderrs, i) ?? null, n: at(counts, i) ?? null,
    }));
  }

  function rowsOf(score, key, log, hidden) {
    const { run, flags, hollow, x } = data.checkpoints;
    return scoresOf(score).flatMap(({ point, y, stderr, n }) => {
      const place = x[key]?.[point] ?? null;
      const { label } = data.runs[run[point]];
      if (place === null || y === null || (log && place <= 0) || hidden.has(label)) return [];
      return [{
        x: place, y, run: label, point, stderr, n,
        low: stderr === null ? null : y - stderr, high: stderr === null ? null : y + stderr,
        flagged: flags[point] !== null, hollow: Boolean(hollow[point]),
      }];
    });
  }

  const median = (values) => {
    const sorted = values.slice().sort((a, b) => a - b);
    const half = sorted.length >> 1;
    return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
  };

  // of the checkpoints of one run around each, fewer at its ends, as many on either side
  const runningMedian = (rows, width) =>
    rows.map((_, i) => {
      const side = Math.min((width - 1) / 2, i, rows.length - 1 - i);
      return median(rows.slice(i - side, i + side + 1).map((row) => row.y));
    });

  // a line through the nearest checkpoints along x, weighted by the tricube of their distance
  function localLine(rows, log) {
    const place = rows.map((row) => (log ? Math.log(row.x) : row.x));
    const order = place.map((_, i) => i).sort((a, b) => place[a] - place[b]);
    const [xs, ys] = [order.map((i) => place[i]), order.map((i) => rows[i].y)];
    const size = Math.min(xs.length, Math.max(3, Math.ceil(NEAR * xs.length)));
    const out = [];
    let first = 0;
    xs.forEach((x, i) => {
      while (first + size < xs.length && xs[first + size] - x < x - xs[first]) first += 1;
      out[order[i]] = fitted(xs.slice(first, first + size), ys.slice(first, first + size), x);
    });
    return out;
  }

  function fitted(xs, ys, x) {
    const reach = Math.max(...xs.map((one) => Math.abs(one - x))) * (1 + 1e-9);
    const weights = xs.map((one) => (reach ? (1 - (Math.abs(one - x) / reach) ** 3) ** 3 : 1));
    const total = weights.reduce((sum, one) => sum + one, 0);
    const mean = (values) => values.reduce((sum, one, i) => sum + weights[i] * one, 0) / total;
    const [centre, level] = [mean(xs), mean(ys)];
    const spread = mean(xs.map((one) => (one - centre) ** 2));
    if (spread <= 1e-12 * reach ** 2) return level;
    return level + (mean(xs.map((one, i) => (one - centre) * ys[i])) / spread) * (x - centre);
  }

  // what lines go through: the checkpoints that are not flagged, smoothed run by run
  function linesOf(rows, smooth, log) {
    const sound = rows.filter((row) => !row.flagged);
    if (!smooth) return sound;
    const runs = Map.groupBy(sound, (row) => row.run);
    return [...runs.values()].flatMap((run) => {
      const ys = smooth === "local" ? localLine(run, log) : runningMedian(run, Number(smooth));
      return run.map((row, i) => ({ ...row, y: ys[i] }));
    });
  }

  const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

  function valueText(value, stderr, n) {
    const spread = stderr === null ? say("standard error unknown") : `± ${stderr.toPrecision(2)}`;
    return `${Number(value.toPrecision(5))} ${spread}${n === null ? "" : `, n = ${whole.format(n)}`}`;
  }

  // everything that is known of a checkpoint: label and text
  function factsOf(point) {
    const { told, facts, flags } = data.checkpoints;
    const known = Object.entries(told).map(([name, label]) => [label, facts[name][point] ?? ""]);
    return [...known, [say("flags"), flags[point] ?? say("none")]];
  }

  read();
  return {
    data, axes, named, read, say, words: (text) => text, fill, isFinding, isCurve, source, at, nameOf,
    shownBy, hasMetric, scoresOf, rowsOf, linesOf, valueText, factsOf,
  };
})();
