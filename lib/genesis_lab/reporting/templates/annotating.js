// The front end of annotation: a key is one call of Python, which answers with all that is shown.

const annotating = inNotebook((place, about, call) => {
  let shown = {}, busy = false, every = false, ended = false, chosen = null;
  const kbd = (key) => el("kbd", {}, key);
  const told = el("div", { class: "glb-told", role: "alert", hidden: true });
  const head = el("header", {}), view = el("section", { class: "gla-view", "aria-live": "polite" });
  const list = el("datalist", { id: `names-${Math.random().toString(36).slice(2)}` });
  const find = el("input", { list: list.id, placeholder: "find or name an intent ( / )", "aria-label": "find or name an intent", oninput: () => hint() });
  const hinted = el("small", {}), kinds = el("datalist", { id: `${list.id}-kinds` });
  const kind = el("input", { list: kinds.id, placeholder: "entity", "aria-label": "entity of the selected text" });
  const ask = el("form", { class: "gla-ask", hidden: true, onsubmit: (event) => { event.preventDefault(); mark(); } }, el("span", {}), kind, el("small", {}, "Enter marks it, Esc leaves it"));
  const does = { i: ["ignore"], o: ["out_of_scope"], g: ["flag"], u: ["undo"], r: ["redo"], j: ["next"], k: ["previous"] };
  const button = ([key, [name]]) => el("button", { type: "button", title: `key ${key}`, onclick: () => act(name) }, kbd(key), ` ${name.replaceAll("_", " ")}`);
  const all = el("button", { type: "button", title: "key a", onclick: () => { every = !every; draw(); } });
  const keys = el("footer", {}, el("span", {}, kbd("1"), "–", kbd("9"), " label, save, next"), ...Object.entries(does).map(button), el("span", {}, "select text: entity"));
  const root = el("div", { class: "glb gla", tabindex: "0", "data-lm-suppress-shortcuts": "true", onkeydown: pressed, onmouseup: selected },
    head, told, view, ask, el("div", { class: "gla-find" }, find, hinted, list, kinds), keys);
  place.append(root);

  async function act(name, value = null) {
    if (busy || ended) return;  // a key that comes too early must not label what was not seen
    busy = true;
    try { shown = await call("act")({ does: name, value, every: every && name !== "mark" }); say(""); if (name !== "mark" && name !== "unmark") every = false; draw(); }
    catch (error) { say(error.message); }
    finally { busy = false; }
  }
  function say(text) { told.textContent = text; told.hidden = !text; }
  function match() { const words = fold(find.value.trim()); return !words ? null : shown.intents.find((one) => fold(one) === words) ?? shown.intents.find((one) => fold(one).includes(words)); }
  function hint() { const words = find.value.trim(); hinted.textContent = !words ? "" : match() ? `Enter: ${match()} · Shift+Enter: new intent ${words}` : `Enter: new intent ${words}`; }

  function draw() {
    head.replaceChildren(el("b", {}, "Annotate"), el("progress", { max: shown.total || 1, value: shown.done, "aria-label": "labelled" }),
      el("span", { class: "glb-count", role: "status" }, `${counted(shown.done)} labelled · ${shown.text != null ? `${counted(shown.at + 1)} of ${counted(shown.total)}` : `end of ${counted(shown.total)}`}`), el("small", {}, about.banner || ""));
    list.replaceChildren(...shown.intents.map((one) => el("option", { value: one })));
    kinds.replaceChildren(...shown.entities.map((one) => el("option", { value: one })));
    find.value = ""; hint(); ask.hidden = true;
    if (shown.text == null) { view.replaceChildren(el("p", { class: "glb-none" }, "Nothing is left to look at. Undo goes back.")); return; }
    const text = el("p", { class: "gla-text", dir: "auto" }, ...parts());
    const ranks = shown.ranking.map((one, i) => el("button", { type: "button", class: "gla-rank", onclick: () => act("label", one.name) }, kbd(String(i + 1)), el("span", {}, one.name),
      el("small", {}, one.confidence == null ? "" : `${(100 * one.confidence).toFixed(1)} %`)));
    all.replaceChildren(kbd("a"), ` label all ${1 + shown.like.length} like this: ${every ? "yes" : "no"}`); all.setAttribute("aria-pressed", String(every));
    const like = shown.like.length ? el("div", { class: "gla-like" }, all, el("ul", {}, ...shown.like.map(([one, n]) => el("li", { dir: "auto" }, one, el("small", {}, ` ×${counted(n)}`))))) : "";
    view.replaceChildren(el("div", { class: "gla-main" }, el("small", {}, `${shown.reason} · said ×${counted(shown.times)}`), text,
      shown.said ? el("p", { class: "gla-said" }, `your label: ${shown.said}`) : "", el("div", { class: "gla-ranks" }, ...ranks), like),
      el("div", { class: "gla-context", "aria-label": "conversation" }, ...shown.context.flatMap((one) => [
        el("p", { class: one.key === shown.message ? "gla-asked" : "", dir: "auto" }, one.text ?? "–"),
        ...(one.events || []).filter((event) => event.bot).map((event) => el("p", { class: "gla-bot", dir: "auto" }, event.bot))])));
  }

  function parts() {  // places are code points
    const points = [...shown.text], made = [];
    let at = 0;
    shown.spans.map((one, number) => ({ ...one, number })).sort((a, b) => a.start - b.start).forEach((one) => {
      if (one.start < at) return;
      made.push(points.slice(at, one.start).join(""), el("mark", { "data-entity": one.entity + (one.role ? `:${one.role}` : ""), title: "click takes the entity away",
        onclick: () => act("unmark", one.number) }, points.slice(one.start, one.end).join("")));
      at = one.end;
    });
    return [...made, points.slice(at).join("")];
  }

  function selected(event) {  // the place in the whole text, as a browser counts: Python turns it into code points
    const text = view.querySelector(".gla-text"), picked = document.getSelection();
    if (!text || !picked.rangeCount || picked.isCollapsed || !text.contains(picked.anchorNode) || !text.contains(picked.focusNode)) return;
    const range = picked.getRangeAt(0), before = document.createRange();
    before.setStart(text, 0); before.setEnd(range.startContainer, range.startOffset);
    const start = before.toString().length;
    chosen = { start, end: start + range.toString().length };
    ask.firstChild.textContent = `“${range.toString()}” is`;
    ask.hidden = false; kind.value = ""; kind.focus();
  }
  function mark() { const entity = kind.value.trim(); if (chosen && entity) act("mark", { ...chosen, entity }); root.focus(); }

  function pressed(event) {
    event.stopPropagation();
    if (event.key === "Escape") { ask.hidden = true; find.value = ""; hint(); root.focus(); return; }
    if (event.target === find && event.key === "Enter") {
      event.preventDefault();
      const name = event.shiftKey ? find.value.trim() : match() || find.value.trim();
      if (name) act("label", name);
      root.focus(); return;
    }
    if (event.target.tagName === "INPUT" || event.ctrlKey || event.metaKey || event.altKey) return;
    const rank = shown.ranking?.[Number(event.key) - 1], plain = { ArrowDown: "j", ArrowRight: "j", ArrowUp: "k", ArrowLeft: "k" }[event.key] ?? event.key;
    if (!event.repeat && rank) { event.preventDefault(); act("label", rank.name); }
    else if (event.key === "/") { event.preventDefault(); find.focus(); }
    else if (event.key === "a" && shown.like?.length) { every = !every; draw(); }
    else if (does[plain]) { event.preventDefault(); if (!event.repeat || "jk".includes(plain)) act(does[plain][0]); }
  }

  act("show");
  return () => { ended = true; root.remove(); };
});
