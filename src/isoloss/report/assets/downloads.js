// One menu for all figures: the figure as SVG, PNG or the rows it is drawn from, and its query.
"use strict";
(() => {
  const { data, axes, drawn, fileView, isFinding, shownBy, source, nameOf, linesOf, say } =
    window.isoloss;
  const SHARP = 3; // pixels of a PNG for each on the page: 300 dots an inch at three inches
  const menu = document.getElementById("figure-menu");
  let opener = null;

  const figureOf = (button) => button.closest("figure");
  const titleOf = (figure) =>
    ["h4", ".detail"].map((name) => figure.querySelector(name)?.textContent).filter(Boolean).join(", ");

  // what is in the file, from the figure's own words
  function fileName(figure) {
    const words = [figure.closest(".drawing")?.querySelector("h3")?.textContent, titleOf(figure)];
    if (figure.dataset.metric) words.push(`${figure.dataset.metric} against ${figure.dataset.x}`);
    const plain = [...new Set(words.filter(Boolean))].join(" ").normalize("NFKD");
    return plain.replace(/[^A-Za-z0-9]+/g, "-").replace(/^-|-$/g, "").slice(0, 120) || figure.id || "figure";
  }

  // numbers stand as they are; text that a spreadsheet would compute gets an apostrophe before it
  function cell(value) {
    if (value === null || value === undefined) return "";
    // the page keeps six digits
    if (typeof value === "number") return String(Number(value.toPrecision(6)));
    if (typeof value !== "string") return String(value);
    const text = /^[=+\-@\t\r\n]/.test(value) ? `'${value}` : value;
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  }
  const csv = (rows) => `${rows.map((row) => row.map(cell).join(",")).join("\r\n")}\r\n`;

  function panelTable(figure) {
    const { state } = window.isoloss;
    const { log, metric } = shownBy(figure, state);
    const { x, run, flags } = data.checkpoints;
    const rows = drawn.get(figure).content.sets.points;
    const keys = [...axes.keys()].filter((key) => key in x);
    const { title } = source(figure).metrics[metric];
    const heads = ["checkpoint", "family", "model", "run", ...keys.map((key) => axes.get(key).title),
      title, `standard error of ${title}`, "n", "flags", "schedule unfinished"];
    const smooth = state.smooth && new Map(linesOf(rows, state.smooth, log).map((row) => [row.point, row.y]));
    if (smooth) heads.push(`${title}, smoothed (${document.getElementById("smooth").selectedOptions[0].textContent})`);
    return [heads, ...rows.map((row) => {
      const { family, model, label } = data.runs[run[row.point]];
      return [nameOf(row.point), family, model, label, ...keys.map((key) => x[key][row.point]),
        row.y, row.stderr, row.n, flags[row.point], row.hollow, ...(smooth ? [smooth.get(row.point)] : [])];
    })];
  }

  // rows as they were drawn, under the titles of the figure's axes
  function plainTable(figure) {
    const { content, makeSpec } = drawn.get(figure);
    const titles = {};
    const collect = (spec) => {
      for (const one of [spec.encoding?.x, spec.encoding?.y, ...(spec.encoding?.tooltip ?? [])]) {
        if (one?.field && one.title) titles[one.field] ??= [one.title].flat().join(" ");
      }
      (spec.layer ?? []).forEach(collect);
    };
    collect(makeSpec());
    const rows = content.sets.rows;
    const names = [...new Set(rows.flatMap(Object.keys))].filter((name) => !["i", "far", "chosen"].includes(name));
    return [names.map((name) => titles[name] ?? name), ...rows.map((row) => names.map((name) => row[name]))];
  }

  const isSeries = (figure) => figure.matches(".panel") && !isFinding(figure);

  function save(blob, name) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  const escaped = (text) => text.replace(/[&<>]/g, (one) => `&#${one.charCodeAt(0)};`);

  // the query travels with the drawing
  function described(svg, figure) {
    const query = figure.querySelector(".query code")?.textContent ?? "";
    const made = document.querySelector('meta[name="generator"]').content;
    const words = escaped([titleOf(figure), made, query].filter(Boolean).join("\n"));
    return svg.replace(/<svg[^>]*>/, (start) => `${start}<desc>${words}</desc>`);
  }

  const makers = {
    async svg(figure) {
      const svg = await fileView(figure, titleOf(figure)).toSVG();
      return new Blob([described(svg, figure)], { type: "image/svg+xml" });
    },
    async png(figure) {
      const canvas = await fileView(figure, titleOf(figure)).toCanvas(SHARP);
      return new Promise((done) => canvas.toBlob(done, "image/png"));
    },
    async csv(figure) {
      const table = isSeries(figure) ? panelTable(figure) : plainTable(figure);
      return new Blob([csv(table)], { type: "text/csv" });
    },
  };

  function close() {
    menu.hidden = true;
    opener?.setAttribute("aria-expanded", "false");
    opener = null;
  }

  function open(button) {
    const figure = figureOf(button);
    opener = button;
    button.setAttribute("aria-expanded", "true");
    button.after(menu);
    for (const item of menu.querySelectorAll("button")) {
      item.hidden = item.dataset.as === "query" ? !figure.querySelector(".query") : !drawn.has(figure);
    }
    menu.hidden = false;
    menu.querySelector("button:not([hidden])")?.focus();
  }

  async function choose(item) {
    const figure = figureOf(opener);
    const button = opener;
    close();
    button.focus();
    const kind = item.dataset.as;
    if (kind === "query") {
      figure.querySelector(".query").open = true;
      window.isoloss.copy(figure.querySelector(".query code").textContent, figure.querySelector(".query summary"));
    } else {
      save(await makers[kind](figure), `${fileName(figure)}.${kind}`);
    }
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button.menu");
    const item = event.target.closest("#figure-menu button");
    if (item) choose(item);
    else if (button && button !== opener) {
      close();
      open(button);
    } else close();
  });
  menu.addEventListener("keydown", (event) => {
    const items = [...menu.querySelectorAll("button:not([hidden])")];
    const now = items.indexOf(document.activeElement);
    const moves = { ArrowDown: now + 1, ArrowUp: now - 1, Home: 0, End: items.length - 1 };
    if (event.key in moves) items.at(moves[event.key] % items.length).focus();
    else if (event.key === "Escape") {
      const button = opener;
      close();
      button.focus();
    } else return;
    event.preventDefault();
  });
  menu.addEventListener("focusout", (event) => {
    if (event.relatedTarget && !menu.contains(event.relatedTarget)) close();
  });

  // to the clipboard, also where the page is not one that may use it
  window.isoloss.copy = async (text, button) => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const field = document.createElement("textarea");
      field.value = text;
      document.body.append(field);
      field.select();
      document.execCommand("copy");
      field.remove();
    }
    button.classList.add("copied");
    const said = document.getElementById("said");
    said.textContent = say("Copied.");
    setTimeout(() => {
      button.classList.remove("copied");
      said.textContent = "";
    }, 1500);
  };
})();
