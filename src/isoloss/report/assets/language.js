// The page's fixed words in another language. English stands in the page; a dictionary and one
// observer put the other words in place, also of what scripts write later. Names are left alone.
"use strict";
(() => {
  const dictionaries = JSON.parse(document.getElementById("dictionaries").textContent);
  const root = document.documentElement;
  const NAMES = "bdi:not(.ours), code, pre, script, style, svg, canvas, .english, .pieces, td.value";
  const ATTRIBUTES = ["aria-label", "title", "placeholder"];
  const REVERSED = "reversed: lower is to the right";
  const FULL_WIDTH = /^[\u3000-\u303f\uff00-\uffef]|[\u3000-\u303f\uff00-\uffef]$/;
  const english = new WeakMap(); // text node or element -> what it says in English
  let now = "en";
  let patterns = [];
  let found = new Map(); // English -> the other language, of what was looked up before

  // "{n} more" as an expression; the longest own words first, so that the closest key wins
  const slotOf = (name) => (["n", "all", "total"].includes(name) ? "([\\d.,]+)" : "(.+?)");
  function expressions(words) {
    const plain = (text) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
    return Object.keys(words)
      .filter((key) => key.includes("{"))
      .map((key) => {
        const slots = [...key.matchAll(/\{(\w+)\}/g)].map((match) => match[1]);
        const parts = key.split(/\{\w+\}/);
        return { slots, said: words[key], own: parts.join("").length,
          test: new RegExp(`^${parts.map((part, i) => (i ? slotOf(slots[i - 1]) : "") + plain(part)).join("")}$`, "s") };
      })
      .sort((a, b) => b.own - a.own);
  }

  function whole(text) {
    const words = dictionaries[now];
    if (Object.hasOwn(words, text)) return words[text];
    for (const { test, slots, said } of patterns) {
      const match = test.exec(text);
      if (match) {
        const values = new Map(slots.map((slot, i) => [slot, phrase(match[i + 1])]));
        return said.replace(/\{(\w+)\}/g, (_, slot) => values.get(slot));
      }
    }
    return null;
  }

  // as a whole; else sentence by sentence; else as it is
  function phrase(text) {
    if (now === "en" || !/[A-Za-z,;]/.test(text)) return text;
    if (!found.has(text)) {
      const parts = text.split(/(?<=[.!?]) (?=[A-Z\d])/);
      found.set(text, whole(text) ??
        (parts.length > 1 && parts.every((part) => whole(part) !== null) ? parts.map(whole).join("") : text));
    }
    return found.get(text);
  }

  function say(text) {
    const [, before, core, after] = /^(\s*)(.*?)(\s*)$/s.exec(text);
    const said = phrase(core.replace(/\s+/g, " "));
    if (said === core.replace(/\s+/g, " ")) return text;
    return FULL_WIDTH.test(said) ? said : `${before}${said}${after}`;
  }

  function retellText(node) {
    const parent = node.parentElement;
    if (!node.nodeValue.trim() || !parent || parent.matches("[data-say]") || parent.closest(NAMES)) return;
    const told = english.get(node);
    // what a script wrote since is new English
    if (!told || told.shown !== node.nodeValue) english.set(node, { text: node.nodeValue });
    const one = english.get(node);
    one.shown = say(one.text);
    if (node.nodeValue !== one.shown) node.nodeValue = one.shown;
    // what a study wrote is ours where the dictionary knows it, and English elsewhere
    if (parent.matches("bdi.ours")) parent.lang = one.shown === one.text ? "en" : root.lang;
  }

  function retellAttributes(element) {
    for (const name of ATTRIBUTES) {
      if (!element.hasAttribute(name) || element.closest(".pieces, .members")) continue;
      const told = english.get(element) ?? {};
      if (told[name]?.shown !== element.getAttribute(name)) {
        told[name] = { text: element.getAttribute(name) };
        english.set(element, told);
      }
      told[name].shown = say(told[name].text);
      if (element.getAttribute(name) !== told[name].shown) element.setAttribute(name, told[name].shown);
    }
  }

  // a sentence: its slots take their places in the other language's template
  function retellSentence(element) {
    const slots = new Map([...element.children].map((slot) => [slot.dataset.slot, slot]));
    const template = dictionaries[now]?.[element.dataset.say] ?? element.dataset.say;
    element.replaceChildren(...template.split(/\{(\w+)\}/).map((text, i) => (i % 2 ? slots.get(text) : text)));
  }

  function retell(node) {
    if (node.nodeType === Node.TEXT_NODE) return retellText(node);
    if (node.nodeType !== Node.ELEMENT_NODE) return;
    const walk = document.createTreeWalker(node, NodeFilter.SHOW_TEXT | NodeFilter.SHOW_ELEMENT, (one) =>
      one.nodeType === Node.ELEMENT_NODE && one.matches("script, style, svg, canvas, .pieces")
        ? NodeFilter.FILTER_REJECT : NodeFilter.FILTER_ACCEPT);
    for (let one = walk.currentNode; one; one = walk.nextNode()) {
      if (one.nodeType === Node.TEXT_NODE) retellText(one);
      else retellAttributes(one);
    }
  }

  // what a server put in place has sentences of its own
  function added(node) {
    node.querySelectorAll?.("[data-say]").forEach(retellSentence);
    retell(node);
  }

  const observer = new MutationObserver((changes) => {
    for (const { type, target, addedNodes } of changes) {
      if (type === "childList") addedNodes.forEach(added);
      else if (type === "attributes") retellAttributes(target);
      else retellText(target);
    }
    observer.takeRecords(); // our own changes
  });

  function set(language) {
    const to = language === "en" || dictionaries[language] ? language : "en";
    if (to === now) return;
    observer.disconnect();
    now = to;
    found = new Map();
    patterns = expressions(dictionaries[now] ?? {});
    root.lang = now === "zh" ? "zh-Hans" : now;
    document.querySelectorAll("[data-say]").forEach(retellSentence);
    retell(document.head.querySelector("title"));
    retell(document.body);
    document.querySelectorAll("[data-language]").forEach((button) =>
      button.setAttribute("aria-pressed", String(button.dataset.language === now)));
    if (now !== "en") {
      observer.observe(document.body, {
        subtree: true, childList: true, characterData: true, attributes: true, attributeFilter: ATTRIBUTES,
      });
    }
  }

  // titles of a figure: of its axes, of what is told of a point, and labels of its rules
  function wordsOf(spec) {
    if (now === "en" || spec === null || typeof spec !== "object") return spec;
    for (const [name, value] of Object.entries(spec)) {
      const lines = [value].flat();
      if (["title", "label"].includes(name) && typeof lines[0] === "string") {
        // the lines were broken for English; only the last one is a sentence by itself
        const last = lines.at(-1) === REVERSED && lines.length > 1 ? [phrase(lines.pop())] : [];
        spec[name] = last.length ? [phrase(lines.join(" ")), ...last] : phrase(lines.join(" "));
      } else {
        wordsOf(value);
      }
    }
    return spec;
  }

  window.isoloss.words = phrase; // of what other scripts say
  window.isoloss.wordsOf = wordsOf;

  for (const button of document.querySelectorAll("[data-language]")) {
    button.addEventListener("click", () => {
      const { language } = button.dataset;
      window.isoloss.state.lang = language === root.dataset.starts ? "" : language;
      set(language);
      window.isoloss.changed();
    });
  }
  // the link may name another language than the page starts in
  document.addEventListener("isoloss:view", () => set(window.isoloss.state.lang || root.dataset.starts));
  set(root.dataset.starts);
})();
