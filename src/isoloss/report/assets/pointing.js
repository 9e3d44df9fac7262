// The checkpoint that is pointed at, by mouse or by keys: its facts, its run drawn strong, a click to pin it.
"use strict";
(() => {
  const { drawn, isFinding, isCurve, nameOf, factsOf, valueText, say } = window.isoloss;
  const REACH = 16; // pixels from a point that still mean it
  const tip = document.getElementById("tip");

  function place(x, y) {
    const { offsetWidth: width, offsetHeight: height } = tip;
    tip.style.left = `${Math.max(4, Math.min(x + 14, innerWidth - width - 8))}px`;
    tip.style.top = `${y + 18 + height < innerHeight ? y + 18 : Math.max(4, y - height - 12)}px`;
  }

  function show(title, pairs, x, y) {
    const rows = pairs.map(([label, text]) => {
      const row = document.createElement("div");
      const [name, value] = ["dt", "dd"].map((tag) => document.createElement(tag));
      name.textContent = label;
      value.textContent = text;
      row.append(name, value);
      return row;
    });
    const list = document.createElement("dl");
    list.append(...rows);
    const head = document.createElement("strong");
    head.textContent = title;
    tip.replaceChildren(...(title ? [head] : []), list);
    tip.hidden = false;
    place(x, y);
  }

  // what a figure of a finding says of a point by itself
  window.isoloss.tell = (event, told) => {
    if (told === null || told === undefined || told === "") tip.hidden = true;
    else show("", Object.entries(told), event.clientX, event.clientY);
  };

  // where the points of a figure lie on the screen
  function spots(one) {
    one.spots ??= (() => {
      const [x, y] = [one.view.scale("x"), one.view.scale("y")];
      return one.content.sets.points.map((row) => [x(row.x), y(row.y)]);
    })();
    return one.spots;
  }

  const frame = (figure) => figure.querySelector(".chart canvas, .chart svg").getBoundingClientRect();

  function nearest(figure, one, event) {
    const [left, top] = one.view.origin();
    const { x, y } = frame(figure);
    const [px, py] = [event.clientX - x - left, event.clientY - y - top];
    let [best, found] = [REACH ** 2, null];
    spots(one).forEach(([sx, sy], i) => {
      const far = (sx - px) ** 2 + (sy - py) ** 2;
      if (far < best) [best, found] = [far, i];
    });
    return found;
  }

  function point(figure, one, place, cause) {
    const row = place === null ? null : one.content.sets.points[place];
    one.at = place;
    figure.querySelector(".chart").classList.toggle("hit", row !== null);
    if (one.pointed !== (row?.run ?? null)) {
      one.pointed = row?.run ?? null;
      one.view.signal("pointed", one.pointed ?? "");
      if (!isCurve(figure)) {
        const own = one.content.sets.points.filter((other) => other.run === one.pointed && other.low !== null);
        one.view.data("spread", own.map((other) => ({ ...other })));
      }
      one.view.run();
    }
    if (row === null) {
      tip.hidden = true;
      return;
    }
    const facts = [[say("value"), valueText(row.y, row.stderr, row.n)], ...factsOf(row.point)];
    show(nameOf(row.point), facts, ...(cause ? [cause.clientX, cause.clientY] : onScreen(figure, one, place)));
  }

  function onScreen(figure, one, place) {
    const [left, top] = one.view.origin();
    const { x, y } = frame(figure);
    const [sx, sy] = spots(one)[place];
    return [x + left + sx, y + top + sy];
  }

  // the figure of checkpoints that an event belongs to, where it is drawn
  function meant(event) {
    const figure = event.target.closest?.(".chart")?.closest(".panel");
    return figure && !isFinding(figure) && drawn.has(figure) ? [figure, drawn.get(figure)] : [null, null];
  }

  let last = null; // the figure that was pointed into
  function leave() {
    if (last && drawn.has(last)) point(last, drawn.get(last), null);
    last = null;
  }

  function move(event) {
    const [figure, one] = meant(event);
    if (last && last !== figure) leave();
    if (!figure) return;
    last = figure;
    point(figure, one, nearest(figure, one, event), event);
  }

  function pin(one, place) {
    window.isoloss.pin(nameOf(one.content.sets.points[place].point));
  }

  function press(event) {
    const [figure, one] = meant(event);
    if (!figure) return;
    const count = one.content.sets.points.length;
    const now = one.at ?? null;
    const places = {
      ArrowRight: now === null ? 0 : Math.min(now + 1, count - 1),
      ArrowLeft: now === null ? count - 1 : Math.max(now - 1, 0), Home: 0, End: count - 1,
    };
    if (event.key in places) {
      last = figure;
      point(figure, one, places[event.key]);
    } else if (["Enter", " "].includes(event.key) && now !== null) pin(one, now);
    else if (event.key === "Escape") leave();
    else return;
    event.preventDefault();
  }

  document.addEventListener("pointermove", move);
  document.addEventListener("pointerdown", move); // a finger does not move before it points
  document.addEventListener("keydown", press);
  document.addEventListener("focusout", ({ target }) => {
    if (last?.contains(target)) leave();
  });
  // what is told stands still while the page moves; where the keys are in a figure stays
  document.addEventListener("scroll", () => { tip.hidden = true; }, { passive: true, capture: true });
  document.addEventListener("click", (event) => {
    const [figure, one] = meant(event);
    const place = figure ? nearest(figure, one, event) : null;
    if (place !== null) pin(one, place);
  });
})();
