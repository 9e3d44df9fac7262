// What a server tells while a run goes on: how far it is, and new points put into the page as it stands.
"use strict";
(() => {
  const { data, say } = window.isoloss;
  const base = "api/";
  window.isoloss.live = { base };
  const EVERY = 2000; // milliseconds between two looks
  const HIDDEN = 15000; // where nobody sees the page
  const ALONE = 60000; // without a touch, after which nobody uses the page
  // made by scripts, or held by somebody: left as they are
  const KEPT = "form, .panel, .coloured, #live, #tray, #tip, .languages";
  const panel = document.getElementById("live");
  let version = panel.dataset.version;
  let offered = null; // the version that needs the page to be loaded anew
  const live = new WeakMap(); // element as the server wrote it -> element of the page

  const element = (tag, attributes = {}, ...inside) => {
    const one = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) one.setAttribute(name, value);
    one.append(...inside);
    return one;
  };
  const name = (text) => element("bdi", {}, text);

  // -- the words of the page, put in place where they changed

  const parts = (root) => [...root.children].filter((one) => !one.matches("script, style, link"));
  const holdsKept = (one) => one.querySelector(KEPT) !== null;

  function remember(written, shown) {
    live.set(written, shown);
    if (holdsKept(written) && !written.matches(KEPT)) {
      parts(written).forEach((one, i) => remember(one, parts(shown)[i]));
    }
  }
  let before = document.createElement("body");
  for (const one of parts(document.body)) before.append(one.cloneNode(true));
  parts(before).forEach((one, i) => remember(one, parts(document.body)[i]));

  // what a figure or the controls are made from: another one needs the page to be loaded anew
  const face = (one) => {
    if (one.matches(".panel")) return one.id + (one.querySelector("figcaption")?.textContent ?? "");
    return one.matches("form, .coloured") ? one.textContent.replace(/\s+/g, " ") : "";
  };
  function isAlike(then, now) {
    if (then.tagName !== now.tagName || then.id !== now.id) return false;
    if (now.matches(KEPT)) return face(then) === face(now);
    if (!holdsKept(now)) return !holdsKept(then);
    const [old, fresh] = [parts(then), parts(now)];
    return old.length === fresh.length && old.every((one, i) => isAlike(one, fresh[i]));
  }

  function put(then, now) {
    const shown = live.get(then);
    live.set(now, shown);
    if (now.matches(KEPT)) return;
    if (holdsKept(now)) {
      const fresh = parts(now);
      parts(then).forEach((one, i) => put(one, fresh[i]));
    } else if (then.outerHTML !== now.outerHTML) {
      const copy = document.importNode(now, true);
      const open = [...shown.querySelectorAll("details")].map((one) => one.open);
      copy.querySelectorAll("details").forEach((one, i) => { one.open = open[i] ?? one.open; });
      if (shown.matches("details")) copy.open = shown.open;
      shown.replaceWith(copy);
      live.set(now, copy);
    }
  }

  async function ask(what) {
    const answer = await fetch(base + what, { credentials: "same-origin" });
    if (!answer.ok) throw new Error(String(answer.status));
    return answer;
  }

  async function refresh(to) {
    const answers = await Promise.all([ask("page-data"), ask("words")]);
    const fresh = await answers[0].json();
    const now = new DOMParser().parseFromString(await answers[1].text(), "text/html").body;
    // one of the two may be newer than the other: both come again with the next look
    const written = now.querySelector("#live").dataset.version;
    if (answers[0].headers.get("etag") !== `"${written}"`) return;
    if (!isAlike(before, now)) {
      offered = to;
      return;
    }
    parts(before).forEach((one, i) => put(one, parts(now)[i]));
    before = now;
    for (const key of Object.keys(data)) delete data[key];
    Object.assign(data, fresh, { version: written });
    version = written;
    offered = null;
    document.dispatchEvent(new CustomEvent("isoloss:data"));
  }

  // -- how far it is

  const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
  const short = (value) => (value < 10 ? String(Number(value.toPrecision(2))) : whole.format(value));
  function time(seconds) {
    if (seconds < 90) return say("{n} s", { n: Math.ceil(seconds) });
    if (seconds < 5400) return say("{n} min", { n: Math.round(seconds / 60) });
    return say("{n} h", { n: short(seconds / 3600) });
  }
  const STATES = { running: "Running", stopped: "Stopped before its end", idle: "Not running" };
  const LAWS = { "being asked": "The laws are being asked.", behind: "What the laws say is of a moment ago.",
    waiting: "The laws will be asked." };

  const bar = element("progress", { "aria-label": say("Cells measured") });
  const line = element("p", { class: "facts" });
  const at = element("ul", { class: "at" });
  const list = element("ul", {});
  const failures = element("details", { hidden: "" }, element("summary"), list);
  const reload = element("button", { type: "button" }, say("Load the page anew"));
  const offer = element("p", { class: "offer", role: "status" });
  const trouble = element("p", { class: "trouble", role: "status" });
  reload.addEventListener("click", () => location.reload());
  // a page on a wall loads itself anew; one that somebody uses waits for the button
  let touched = -Infinity;
  for (const event of ["pointerdown", "keydown", "wheel", "touchstart", "change", "input"]) {
    window.addEventListener(event, () => { touched = performance.now(); }, { passive: true, capture: true });
  }
  const isAlone = () => performance.now() > ALONE / 3 && performance.now() - touched > ALONE;
  panel.replaceChildren(line, bar, at, failures, trouble, offer);

  function facts(status) {
    const told = [say(STATES[status.state])];
    const add = (value, text, n) => value !== null && told.push(say(text, { n }));
    const { done } = status;
    if (done === null) add(status.cells, "{n} cells measured", whole.format(status.cells));
    else told.push(say("{n} of {all} cells", { n: whole.format(done), all: whole.format(status.total) }));
    bar.hidden = done === null;
    Object.assign(bar, { max: status.total || 1, value: done ?? 0 });
    if (status.failed) add(status.failed, "{n} failed", whole.format(status.failed));
    if (status.flagged) add(status.flagged, "{n} flagged", whole.format(status.flagged));
    if (status.state === "running") {
      add(status.cells_per_minute, "{n} cells a minute", short(status.cells_per_minute ?? 0));
      add(status.tokens_per_second, "{n} tokens a second", short(status.tokens_per_second ?? 0));
      add(status.seconds_left, "about {n} left", time(status.seconds_left ?? 0));
    }
    return told.join(" \u00b7 ");
  }

  function failureLine(one) {
    const what = [one.checkpoint, one.probe, one.subject].filter(Boolean).join(" ");
    return element("li", {}, name(what), ": ", name(`${one.error}: ${one.reason}`), " ",
      element("span", { class: "remedy" }, say("What to do:"), " ", name(one.remedy)));
  }

  // only where it says something else: somebody may read or copy it
  const again = (one, inside) => {
    const text = inside.map((part) => part.textContent ?? part).join("\n");
    if (one.dataset.text !== text) one.replaceChildren(...inside);
    one.dataset.text = text;
  };

  function tell(status) {
    line.textContent = facts(status);
    again(at, status.processes.map((one) => element("li", {},
      name(one.checkpoint ?? one.note ?? one.study), ` (${one.host} ${one.process}`,
      one.is_there ? ")" : `, ${say("gone")})`)));
    failures.hidden = !status.failed;
    failures.firstChild.textContent = say("Failures, the latest first: {n}", { n: status.failed });
    again(list, status.failures.map(failureLine));
    const { problem } = status;
    again(trouble, problem ? [name(problem.what), " ", name(problem.remedy)]
      : LAWS[status.laws] ? [element("span", {}, say(LAWS[status.laws]))] : []);
    if (offered && isAlone()) location.reload();
    again(offer, offered ? [element("span", {}, say("There is something new that this page has no place for."), " "), reload] : []);
  }

  async function look() {
    try {
      const status = await (await ask("status")).json();
      if (status.page && status.page !== version && status.page !== offered) await refresh(status.page);
      tell(status);
    } catch (error) {
      const why = element("span", {}, say("The server does not answer ({why}); what is shown is as it was.", { why: error.message }));
      again(trouble, [why]);
    }
    setTimeout(look, document.hidden ? HIDDEN : EVERY);
  }
  look();
})();
