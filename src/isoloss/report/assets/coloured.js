// Texts whose pieces are coloured by class: what is chosen, and the curves of the piece pointed at.
"use strict";
(() => {
  const { data, dark, show: showFigure, recoloured } = window.isoloss;
  const UNKNOWN = 255; // of a curve's bytes
  const LOW = 140; // pixels of the curves where they share a narrow screen with the text
  const PART = "\u00b7"; // stands for further bytes of the character before

  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

  function read(section) {
    const text = data.coloured[Number(section.dataset.index)];
    const part = (name) => section.querySelector(name);
    const pieces = part(".pieces");
    const caption = part("figcaption");
    const choices = [...section.querySelectorAll("select")];
    const state = { document: 0, run: 0, rule: 0, axis: 0 };
    const curves = new Map(); // of the document shown: run -> bytes
    let shown = 0; // the piece whose curves are drawn
    let held = null; // the piece that somebody clicked
    let inView = false;

    const here = () => text.documents[state.document];
    const kindsHere = () => here().kinds[state.rule]?.[state.run] ?? null;
    const kindOf = (place) => Number(kindsHere()?.[place] ?? 0);

    function rows(place) {
      return text.runs.flatMap((run, r) => {
        const curve = curves.get(r);
        const xs = text.x[state.axis][r];
        if (!curve) return [];
        return xs.flatMap((x, i) => {
          const level = curve[place * xs.length + i];
          if (level === UNKNOWN || x === null) return [];
          return [{ i, x, y: level * text.unit, run, chosen: r === state.run }];
        });
      });
    }

    function specHere() {
      const colours = dark.matches ? text.dark : text.light;
      const spec = recoloured(window.isoloss.wordsOf(structuredClone(text.specs[state.axis])), colours);
      if (window.matchMedia("(max-width: 640px)").matches) spec.height = LOW;
      return spec;
    }

    function draw() {
      if (!inView) return;
      const look = `coloured ${section.dataset.index} ${state.axis} ${dark.matches} ${window.isoloss.state.lang}`;
      showFigure(part("figure"), look, specHere, { signals: {}, sets: { rows: rows(shown) } });
    }

    function nameOf(place) {
      const spans = here().spans;
      let first = place;
      while (first > 0 && spans[first] === "") first -= 1;
      const name = `\u201c${spans[first]}\u201d`;
      return first === place ? name : `part ${place - first + 1} of ${name}`;
    }

    function show(place) {
      pieces.children[shown]?.classList.remove("shown");
      shown = place;
      pieces.children[place].classList.add("shown");
      const kind = kindsHere() ? text.kinds[kindOf(place)] : "no class: too few checkpoints";
      const words = document.createElement("bdi");
      words.textContent = nameOf(place);
      const end = `, ${kind} for ${text.runs[state.run]}${held === place ? " (held)" : ""}`;
      caption.replaceChildren(words, end);
      draw();
    }

    function hold(place) {
      if (held !== null) pieces.children[held]?.setAttribute("aria-pressed", "false");
      held = held === place ? null : place;
      if (held !== null) pieces.children[held].setAttribute("aria-pressed", "true");
      show(place);
    }

    function colour() {
      const counts = text.kinds.map(() => 0);
      [...pieces.children].forEach((piece, place) => {
        const kind = kindOf(place);
        counts[kind] += 1;
        piece.className = `piece kind-${kind}${here().spans[place] === "" ? " part" : ""}`;
        piece.setAttribute("aria-label", `${nameOf(place)}, ${text.kinds[kind]}`);
      });
      section.querySelectorAll(".share").forEach((share, kind) => {
        share.textContent = `${((100 * counts[kind]) / pieces.children.length).toFixed(0)}%`;
      });
    }

    function open() {
      held = null;
      curves.clear();
      here().curves.forEach((curve, r) => curve && curves.set(r, bytes(curve)));
      pieces.replaceChildren(...here().spans.map((span, place) => {
        const piece = document.createElement("span");
        piece.textContent = span === "" ? PART : span;
        piece.setAttribute("role", "button");
        piece.setAttribute("aria-pressed", "false");
        piece.tabIndex = place === 0 ? 0 : -1;
        return piece;
      }));
      colour();
      shown = 0;
      const first = here().spans.findIndex((span, place) => span.trim() && kindOf(place) > 0);
      show(Math.max(first, 0));
    }

    const placeOf = (target) => [...pieces.children].indexOf(target.closest(".piece"));

    function move(place) {
      const to = Math.min(Math.max(place, 0), pieces.children.length - 1);
      for (const piece of pieces.querySelectorAll('[tabindex="0"]')) piece.tabIndex = -1;
      pieces.children[to].tabIndex = 0;
      pieces.children[to].focus();
    }

    pieces.addEventListener("pointerover", (event) => {
      const place = placeOf(event.target);
      if (place >= 0 && held === null) show(place);
    });
    pieces.addEventListener("focusin", (event) => {
      const place = placeOf(event.target);
      if (place >= 0 && held === null) show(place);
    });
    pieces.addEventListener("click", (event) => {
      const place = placeOf(event.target);
      if (place >= 0) hold(place);
    });
    pieces.addEventListener("keydown", (event) => {
      const place = placeOf(event.target);
      const moves = { ArrowRight: place + 1, ArrowLeft: place - 1, Home: 0, End: Infinity };
      if (place >= 0 && event.key in moves) move(moves[event.key]);
      else if (place >= 0 && ["Enter", " "].includes(event.key)) hold(place);
      else if (event.key === "Escape" && held !== null) hold(held);
      else return;
      event.preventDefault();
    });
    for (const choice of choices) {
      state[choice.dataset.choice] = Number(choice.value);
      choice.addEventListener("change", () => {
        state[choice.dataset.choice] = Number(choice.value);
        if (choice.dataset.choice === "document") return open();
        colour();
        show(shown);
      });
    }
    dark.addEventListener("change", draw);
    new IntersectionObserver(
      (entries) => {
        const was = inView;
        inView = entries.some((entry) => entry.isIntersecting);
        if (inView && !was) draw();
      },
      { rootMargin: "150px" },
    ).observe(section);
    open();
  }

  document.querySelectorAll(".coloured").forEach(read);
})();
