// A figure as a view: the page's Vega-Lite templates are compiled once a look, then only given other rows.
"use strict";
Object.assign(window.isoloss, (() => {
  const { data, axes, say, isFinding, isCurve, source, at, named, shownBy, rowsOf, linesOf } =
    window.isoloss;
  const { vega, vegaLite } = window;
  const MANY = 400; // points beyond which a canvas is drawn faster than elements of a document
  const Y_TITLE = "Y-TITLE"; // as templates.py writes it
  const LEGEND = 24; // names that a downloaded figure has room for

  const drawn = new Map(); // figure -> its view, and what it shows
  const made = new Map(); // look -> what a view is made from
  const logger = vega.logger(vega.Error); // an empty layer is no reason to warn

  // the scheme of colours: the reader's, the system's, and on paper the light one
  const [night, paper] = ["(prefers-color-scheme: dark)", "print"].map((q) => matchMedia(q));
  const dark = new EventTarget();
  let theme = "auto";
  Object.defineProperty(dark, "matches", {
    get: () => !paper.matches && (theme === "auto" ? night.matches : theme === "dark"),
  });
  const recolour = () => dark.dispatchEvent(new Event("change"));
  for (const query of [night, paper]) query.addEventListener("change", recolour);

  function setTheme(name) {
    if (name === theme) return;
    theme = name;
    document.documentElement.dataset.theme = name;
    recolour();
  }

  // the page's colours as a scheme has them: figures cannot read the style sheet
  const palettes = new Map();
  function palette(isDark) {
    if (!palettes.has(isDark)) {
      const probe = document.createElement("span");
      document.body.append(probe);
      const colour = (name) => {
        probe.style.cssText = `color-scheme: ${isDark ? "dark" : "light"}; color: var(${name})`;
        return getComputedStyle(probe).color;
      };
      palettes.set(isDark, { ink: colour("--ink"), quiet: colour("--quiet"), line: colour("--line") });
      probe.remove();
    }
    return palettes.get(isDark);
  }

  function config(isDark) {
    const { ink, quiet, line } = palette(isDark);
    return {
      background: "transparent", font: getComputedStyle(document.body).fontFamily,
      view: { stroke: null },
      axis: {
        labelColor: quiet, titleColor: ink, gridColor: line, domainColor: line, tickColor: line,
        titleFontWeight: "normal", titleFontSize: 11, labelFontSize: 11, gridOpacity: 0.6,
      },
    };
  }

  function eachEncoding(spec, change) {
    if (spec.encoding) change(spec.encoding);
    (spec.layer ?? []).forEach((layer) => eachEncoding(layer, change));
  }

  function recoloured(spec, colours) {
    eachEncoding(spec, (encoding) => {
      for (const name of ["color", "fill", "stroke"]) {
        const channel = encoding[name]?.condition?.scale ? encoding[name].condition : encoding[name];
        if (channel?.scale) channel.scale.range = colours;
      }
    });
    return spec;
  }

  function panelSpec(kind, key, log, isDark) {
    const channel = structuredClone(axes.get(key)[log ? "log" : "linear"]);
    channel.scale.domain = { expr: "xDomain" };
    channel.title = [channel.title].flat().map((line) => say(line));
    const spec = structuredClone(data.specs[kind]);
    eachEncoding(spec, (encoding) => {
      if (encoding.x?.field === "x") encoding.x = channel;
    });
    return recoloured(spec, data.runs.map((one) => (isDark ? one.dark : one.light)));
  }

  // Vega, with the score's title left open: panels of one look differ in it and in their rows
  function compiled(spec, isDark) {
    const { spec: out } = vegaLite.compile(spec, { config: config(isDark), logger });
    for (const axis of out.axes ?? []) {
      if (axis.title === Y_TITLE) axis.title = { signal: "yTitle" };
    }
    out.signals = [...(out.signals ?? []), { name: "yTitle", value: "" }];
    return out;
  }

  function runtimeOf(look, makeSpec) {
    if (!made.has(look)) made.set(look, vega.parse(compiled(makeSpec(), dark.matches)));
    return made.get(look);
  }

  function filled(view, { sets, signals }) {
    for (const [name, value] of Object.entries(signals)) view.signal(name, value);
    for (const [name, rows] of Object.entries(sets)) view.data(name, rows);
    return view;
  }

  // `content`: sets of rows by name, and signals; a view of the same look is kept and given them
  function show(figure, look, makeSpec, content) {
    const chart = figure.querySelector(".chart");
    const points = Math.max(...Object.values(content.sets).map((rows) => rows.length));
    const renderer = points > MANY ? "canvas" : "svg";
    let one = drawn.get(figure);
    chart.hidden = false;
    if (one?.look !== look || one.renderer !== renderer) {
      one?.view.finalize();
      const view = new vega.View(runtimeOf(look, makeSpec), { renderer, container: chart, logger });
      view.tooltip((_, event, __, told) => window.isoloss.tell(event, told));
      one = { view, look, renderer, makeSpec };
      drawn.set(figure, one);
    }
    Object.assign(one, { content, spots: null, pointed: null });
    filled(one.view, content).run();
    return one;
  }

  function forget(figure) {
    drawn.get(figure)?.view.finalize();
    drawn.delete(figure);
    figure.querySelector(".chart").replaceChildren();
  }

  function refuse(figure, text) {
    const message = figure.querySelector(".message");
    message.textContent = text;
    message.hidden = false;
    forget(figure);
    figure.querySelector(".chart").hidden = true;
  }

  const extent = (values) => {
    let [low, high] = [Infinity, -Infinity];
    for (const value of values) {
      if (value < low) low = value;
      if (value > high) high = value;
    }
    return low < high ? [low, high] : [low - Math.abs(low) * 0.05 - 1e-9, high + Math.abs(high) * 0.05 + 1e-9];
  };

  function drawPanel(figure, state) {
    const { key, log, metric } = shownBy(figure, state);
    const kind = isCurve(figure) ? "curve" : "ability";
    const score = source(figure).metrics[metric];
    const rows = rowsOf(score, key, log, state.hidden);
    if (rows.length === 0) {
      return refuse(figure, say("No checkpoint of the runs shown has a place on this axis."));
    }
    const lines = linesOf(rows, state.smooth, log);
    const pins = new Map(state.pins.map((name, i) => [named.get(name), i + 1]));
    const ends = rows.flatMap((row) => (row.low === null ? [row.y] : [row.low, row.high]));
    const rules = score.rules.map((rule) => ({ ...rule, label: say(rule.label) }));
    show(figure, [kind, key, log, dark.matches, state.lang].join(" "),
      () => panelSpec(kind, key, log, dark.matches), {
        signals: {
          xDomain: extent(rows.map((row) => row.x)),
          yDomain: extent([...ends, ...rules.map((rule) => rule.value)]),
          yTitle: say(score.title), faint: Boolean(state.smooth), pointed: "",
          dotSize: rows.length > MANY ? 14 : 36,
        },
        sets: {
          points: rows, lines, rules,
          spread: isCurve(figure) ? rows.filter((row) => !row.flagged && row.low !== null) : [],
          flagged: rows.filter((row) => row.flagged),
          pinned: rows.filter((row) => pins.has(row.point))
            .map((row) => ({ ...row, pin: pins.get(row.point) })),
        },
      });
    figure.querySelector(".message").hidden = true;
    const title = figure.querySelector("h4").textContent;
    figure.querySelector(".chart").setAttribute("aria-label",
      say("{title}: {score} against {axis}. Arrow keys go through the checkpoints, Enter pins one.",
        { title, score: metric, axis: say(axes.get(key).title) }));
  }

  // a panel of a finding: its rows stand as columns, a column of one value as that value
  function findingRows(figure, hidden) {
    const columns = data.panels[Number(figure.dataset.index)].rows;
    const names = Object.keys(columns).filter((name) => name !== "n");
    const rows = Array.from({ length: columns.n }, (_, i) =>
      Object.fromEntries([["i", i], ...names.map((name) => [name, at(columns[name], i)])]));
    return rows.filter((row) => !hidden.has(row.by));
  }

  function drawFinding(figure, state) {
    const nth = data.panels[Number(figure.dataset.index)].figure;
    const { spec, light, dark: onDark } = data.figures[nth];
    show(figure, `finding ${nth} ${dark.matches} ${state.lang}`,
      () => recoloured(window.isoloss.wordsOf(structuredClone(spec)), dark.matches ? onDark : light),
      { signals: {}, sets: { rows: findingRows(figure, state.hidden) } });
    const title = figure.querySelector("h4").textContent;
    figure.querySelector(".chart").setAttribute("aria-label", title);
    figure.dataset.x = "x";
  }

  function draw(figure, state) {
    if (isFinding(figure)) return drawFinding(figure, state);
    const { key, metric } = shownBy(figure, state);
    const refused = source(figure).refused[key];
    if (refused) refuse(figure, say("Refused: {why}", { why: refused }));
    else if (!key) refuse(figure, say("Neither tokens nor FLOPs nor steps are known."));
    else drawPanel(figure, state);
    figure.dataset.x = key ?? "";
    figure.dataset.metric = metric;
  }

  // the same on white, with its title and what the colours mean, as a file needs it
  function fileView(figure, title) {
    const { makeSpec, content, view } = drawn.get(figure);
    const was = theme;
    theme = "light"; // `makeSpec` asks for the scheme: nothing is drawn before it is set back
    const spec = compiled(makeSpec(), false);
    theme = was;
    const names = new Set(Object.values(content.sets).flat().map((row) => row.run ?? row.by));
    const values = spec.scales.find((scale) => scale.name === "color")?.domain
      ?.filter?.((name) => names.has(name)) ?? [];
    Object.assign(spec, { background: "white", padding: 8,
      title: { text: title, anchor: "start", fontSize: 12, limit: 0 } });
    if (values.length > 1 && values.length <= LEGEND) {
      spec.legends = [{ stroke: "color", values, symbolType: "circle", symbolStrokeWidth: 2, labelLimit: 300 }];
    }
    const copy = new vega.View(vega.parse(spec), { renderer: "none", logger });
    return filled(copy.width(view.width()), content);
  }

  document.addEventListener("isoloss:data", () => {
    [...drawn.keys()].forEach(forget);
    made.clear();
  });
  return { dark, setTheme, config, drawn, draw, show, refuse, forget, fileView, recoloured };
})());
