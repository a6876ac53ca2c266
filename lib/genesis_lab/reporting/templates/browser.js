// The front end of the record browser: the same in a notebook (Python answers) and in an HTML file (it answers itself).

const el = (tag, attributes = {}, ...children) => {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value != null) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child != null));
  return made;
};
const spoken = (value) => Array.isArray(value) ? value.map(spoken).join(", ") || "–" : (value === "" || value == null ? "–" : String(value).replaceAll("_", " "));
const counted = (n) => n.toLocaleString("en-US");
const fold = (text) => text.toLowerCase().normalize("NFD").replace(/\p{M}/gu, "");
const wanted = (words) => {
  const parts = words.split('"');
  const whole = parts.filter((part, i) => i % 2 && part.trim());
  return [...whole, ...parts.filter((_, i) => i % 2 === 0).join(" ").split(/\s+/).filter(Boolean)].map(fold);
};

// Draw the browser into `place`. `backend` has ask, open and act, which answer with promises; returns what ends it.
export function mount(place, about, backend) {
  let where = structuredClone(about.where), words = "", offset = 0, size = about.page, found = { total: 0, rows: [], counts: {} };
  let at = 0, asked = 0, opened = null, ended = false, timer = 0, narrowed = {}, either = false, saved = about.saved;
  const hearing = new WeakSet();

  const search = el("input", { type: "search", placeholder: "search the text ( / )", "aria-label": "search the text",
    oninput: () => { words = search.value; offset = 0; later(); } });
  const count = el("span", { class: "glb-count", role: "status" });
  const why = el("input", { class: "glb-why", placeholder: "why (kept with what you decide)", "aria-label": "why" });
  const sizes = el("select", { "aria-label": "records on a page", onchange: () => { size = Number(sizes.value); offset = 0; ask(); } },
    ...[25, 50, 100, 200].map((n) => el("option", { value: n, selected: n === size }, String(n))));
  const joined = el("select", { "aria-label": "how filters are joined", onchange: () => { either = joined.value === "or"; offset = 0; ask(); } },
    el("option", { value: "and" }, "all filters"), el("option", { value: "or" }, "any filter"));
  const keep = el("select", { "aria-label": "saved filters", onchange: () => {
    const [what, n] = keep.value.split(" "), name = Object.keys(saved)[n];
    keep.value = "";
    if (what === "keep") keepNow(); else if (what === "drop") keptAs(name, null); else if (what) choose(saved[name]);
  } });
  const filters = el("aside", { class: "glb-filters", "aria-label": "filters" });
  const list = el("div", { class: "glb-list", role: "listbox", "aria-label": about.unit });
  const pager = el("div", { class: "glb-pager" });
  const view = el("section", { class: "glb-view", "aria-live": "polite" });
  const told = el("div", { class: "glb-told", role: "alert", hidden: true });
  const acts = about.actions.length > 0;
  const keys = el("footer", {}, el("span", {}, kbd("j"), kbd("k"), " next, back"), el("span", {}, kbd("o"), " open"), el("span", {}, kbd("/"), " search"),
    ...about.actions.map((one) => el("button", { type: "button", title: `key ${one.key}`, onclick: () => begin(one) }, kbd(one.key), ` ${one.name}`)));
  const root = el("div", { class: "glb", tabindex: "0", "data-lm-suppress-shortcuts": "true", onkeydown: pressed },
    el("header", {}, el("b", {}, about.title || about.unit), count, search, joined, saved ? keep : null, acts ? why : null, ...(backend.tools || [])),
    told, el("div", { class: "glb-body" }, filters, el("div", { class: "glb-middle" }, list, pager), view), keys);
  place.append(root);

  function byHeading(chosen) { return Object.fromEntries(Object.entries(chosen || {}).map(([title, of]) => [about.filters.find((one) => one.title === title)?.name, of]).filter(([name]) => name)); }
  function choose(chosen) {
    where = byHeading(chosen.where); words = search.value = chosen.words || ""; either = chosen.either === true; joined.value = either ? "or" : "and";
    offset = 0; ask();
  }
  function drawSaved() {
    const names = Object.keys(saved || {});
    keep.replaceChildren(el("option", { value: "" }, "saved filters"), ...names.map((name, n) => el("option", { value: `open ${n}` }, name)), el("option", { value: "keep" }, "save this one …"),
      ...names.map((name, n) => el("option", { value: `drop ${n}` }, `remove ${name}`)));
  }
  async function keptAs(name, chosen) {
    try { saved = await backend.save({ name, chosen }); drawSaved(); say(""); root.focus(); return true; } catch (error) { say(error.message); return false; }
  }
  function keepNow() {
    const name = el("input", { placeholder: "name of this filter", "aria-label": "name of this filter" });
    const form = el("form", { class: "glb-form", onsubmit: async (event) => {
      event.preventDefault();
      const chosen = { where: Object.fromEntries(Object.entries(where).filter(([, of]) => of).map(([key, of]) => [about.filters.find((one) => one.name === key).title, of])), words, either };
      if (await keptAs(name.value.trim(), chosen)) form.remove();
    } }, el("b", {}, "save this filter"), name, el("div", {}, el("button", { type: "submit" }, "Save")));
    view.querySelector("form")?.remove();
    view.prepend(form);
    name.focus();
  }
  // A click on a chart that says what it opens chooses that in the next browser of its notebook that has these filters:
  // its texts hold {x}, {y} and {name} of what was clicked.
  root.opens = (meta, chart) => meta?.where && (meta.unit ?? about.unit) === about.unit && root.closest(".jp-Notebook") === chart.closest(".jp-Notebook")
    && Object.keys(meta.where).every((title) => about.filters.some((one) => one.title === title));
  function heard(event) {
    const chart = event.target.closest?.(".js-plotly-plot");
    if (!chart?.on || hearing.has(chart)) return;
    hearing.add(chart);
    chart.on("plotly_click", ({ points: [point] }) => {
      const meta = chart.layout?.meta;
      const able = [...document.querySelectorAll(".glb")].filter((one) => one.opens?.(meta, chart));
      const next = able.find((one) => chart.compareDocumentPosition(one) & Node.DOCUMENT_POSITION_FOLLOWING) ?? able.at(-1);
      if (ended || next !== root) return;
      const plain = (text) => String(text ?? "").replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&amp;", "&");
      const filled = (of) => typeof of === "string" ? of.replace(/{(x|y|name)}/g, (_, part) => plain(part === "name" ? point.data.name : point[part]))
        : Array.isArray(of) ? of.map(filled) : Object.fromEntries(Object.entries(of).map(([key, one]) => [key, filled(one)]));
      choose({ where: filled(meta.where) });
      root.scrollIntoView({ block: "nearest", behavior: "smooth" });
    });
  }
  document.addEventListener("pointerover", heard, true);
  drawSaved();

  function kbd(key) { return el("kbd", {}, key); }
  function say(text) { told.textContent = text; told.hidden = !text; }
  function later() { clearTimeout(timer); timer = setTimeout(ask, 120); }

  async function ask(to = 0) {
    const mine = ++asked;
    root.classList.add("glb-busy");
    try {
      const answer = await backend.ask({ where, words, offset, limit: size, either });
      if (mine !== asked || ended) return;
      found = answer;
      say("");
    } catch (error) { if (mine === asked) say(error.message); return; }
    finally { if (mine === asked) root.classList.remove("glb-busy"); }
    at = Math.max(0, Math.min(to < 0 ? found.rows.length - 1 : to, found.rows.length - 1));
    drawList(); drawFilters(); open();
  }

  function drawList() {
    count.textContent = `${counted(found.total)} of ${counted(about.total)} ${about.unit}`;
    const shown = about.filters.filter((one) => one.name !== "mark").slice(0, 3);
    list.replaceChildren(...found.rows.map((row, i) => el("div", {
      class: "glb-row", role: "option", id: undefined, "aria-selected": String(i === at), title: row.key,
      onclick: () => { at = i; drawChosen(); open(); } },
      row.mark?.join("") ? el("span", { class: "glb-mark", "data-mark": row.mark[0] }, row.mark.join(", ")) : null,
      el("span", { class: "glb-text", dir: "auto" }, row.text || row.key || "–"),
      el("small", {}, shown.map((one) => spoken(row[one.name])).join(" · ")))));
    const last = Math.max(0, Math.ceil(found.total / size) - 1), page = Math.floor(offset / size);
    const turn = (text, to, off, name) => el("button", { type: "button", disabled: off, "aria-label": name, onclick: () => { offset = to * size; ask(); } }, text);
    pager.replaceChildren(turn("«", 0, page === 0, "first page"), turn("‹", page - 1, page === 0, "page before"),
      el("span", {}, `${page + 1} of ${last + 1}`), turn("›", page + 1, page >= last, "next page"), turn("»", last, page >= last, "last page"), sizes);
    if (!found.rows.length) list.replaceChildren(el("p", { class: "glb-none" }, `No ${about.unit} are left: take a filter off, or search for less.`));
  }

  function drawChosen() {
    [...list.children].forEach((row, i) => row.setAttribute("aria-selected", String(i === at)));
    list.children[at]?.scrollIntoView?.({ block: "nearest" });
  }

  function drawFilters() {
    const focus = document.activeElement?.dataset?.glb, many = Object.keys(where).some((name) => where[name]);
    filters.replaceChildren(many || words ? el("button", { type: "button", class: "glb-clear", onclick: () => {
      where = {}; words = search.value = ""; offset = 0; ask(); } }, "take all filters off") : "", ...about.filters.map(drawFilter));
    if (focus) filters.querySelector(`[data-glb="${CSS.escape(focus)}"]`)?.focus();
  }

  function drawFilter(one) {
    const counts = found.counts[one.name], chosen = where[one.name];
    if (one.kind === "number" || one.kind === "date") {
      const end = (name, shown) => el("input", { type: one.kind, title: shown ?? "", placeholder: shown ?? "", value: chosen?.[name] ?? null, "data-glb": one.name + name,
        "aria-label": `${one.title} ${name}`, onchange: (event) => {
          where[one.name] = { ...where[one.name], [name]: event.target.value === "" ? null : one.kind === "date" ? event.target.value : Number(event.target.value) }; offset = 0; ask(); } });
      return el("fieldset", {}, el("legend", {}, spoken(one.title)), el("div", { class: "glb-range" }, end("from", counts?.low), "to", end("to", counts?.high)));
    }
    if (!counts.length && !chosen) return "";
    const picked = new Set(chosen || []), most = Math.max(1, ...counts.map(([, n]) => n)), text = fold(narrowed[one.name] || "");
    const shown = counts.filter(([value]) => picked.has(value ?? "") || fold(spoken(value)).includes(text));
    for (const value of picked) if (!counts.some(([other]) => (other ?? "") === value)) shown.unshift([value, 0]);
    const lines = shown.map(([value, n]) => el("label", { title: `${spoken(value)}: ${counted(n)}`, style: `--share:${(100 * n) / most}%` },
      el("input", { type: "checkbox", checked: picked.has(value ?? ""), "data-glb": one.name + value, onchange: (event) => {
        event.target.checked ? picked.add(value ?? "") : picked.delete(value ?? "");
        where[one.name] = picked.size ? [...picked] : null; offset = 0; ask(); } }),
      el("span", {}, spoken(value)), el("small", {}, counted(n))));
    const narrow = counts.length > 8 ? el("input", { type: "text", placeholder: `find among ${counts.length}`, value: narrowed[one.name] || "", "data-glb": one.name + "find",
      "aria-label": `find in ${one.title}`, oninput: (event) => { narrowed[one.name] = event.target.value; drawFilters(); } }) : null;
    if (narrow) setTimeout(() => narrow === document.activeElement && narrow.setSelectionRange(narrow.value.length, narrow.value.length));
    return el("fieldset", {}, el("legend", {}, spoken(one.title)), narrow, el("div", { class: "glb-values" }, ...lines));
  }

  async function open() {
    const row = found.rows[at];
    if (!row) { opened = null; view.replaceChildren(); return; }
    const mine = row.row;
    opened = { row: mine, parts: {} };
    try {
      const answer = await backend.open({ row: mine });
      if (ended || found.rows[at]?.row !== mine) return;
      opened = answer;
      const shown = el("div", { class: "gl" });
      shown.innerHTML = answer.html;  // escaped by whoever made it
      view.replaceChildren(el("small", { class: "glb-id" }, `${row.key || `row ${mine + 1}`} · ${counted(offset + at + 1)} of ${counted(found.total)}`),
        answer.tags?.length ? el("ul", { class: "glb-tags" }, ...answer.tags.map(([name, said]) => el("li", {}, el("b", {}, spoken(name)), said ? `: ${said}` : ""))) : "", shown);
      if (answer.more) earlier(shown, mine, 1);
      const here = shown.querySelector(".here");
      view.scrollTop = here ? here.offsetTop - view.offsetTop - 40 : answer.more ? view.scrollHeight : 0;
    } catch (error) { say(error.message); }
  }

  // A long record comes in pages, the first one shown being its end: what is before is fetched when asked for.
  function earlier(shown, row, page) {
    const button = el("button", { type: "button", onclick: async () => {
      try {
        const answer = await backend.open({ row, page }), part = el("div", {});
        if (ended || opened?.row !== row) return;
        part.innerHTML = answer.html;  // escaped by whoever made it
        const below = shown.scrollHeight;
        button.replaceWith(part);
        view.scrollTop += shown.scrollHeight - below;
        if (answer.more) earlier(shown, row, page + 1);
      } catch (error) { say(error.message); }
    } }, "what came before");
    shown.prepend(button);
  }

  function begin(one) {
    const row = found.rows[at];
    if (!row || !opened) return;
    if (!one.asks) { act(one, row); return; }
    const choices = `labels-${Math.random().toString(36).slice(2)}`;
    const fields = one.asks === "parts"
      ? Object.entries(opened.parts).map(([name, text]) => el("textarea", { name, rows: Math.min(8, 1 + Math.ceil(text.length / 60)), "aria-label": name, dir: "auto" }, text))
      : [one.asks === "label" ? el("input", { name: "value", list: choices, placeholder: "the right label", "aria-label": "label" }) : el("textarea", { name: "value", rows: 2, placeholder: one.name, "aria-label": one.name })];
    if (!fields.length) { say("This record has no text that can be changed."); return; }
    const send = () => {
      const changed = Object.fromEntries(fields.filter((field) => field.value !== field.defaultValue).map((field) => [field.name, field.value]));
      const value = one.asks === "parts" ? changed : fields[0].value.trim();
      if (one.asks === "parts" ? !Object.keys(changed).length : !value) { say("Nothing was entered."); return; }
      form.remove(); root.focus(); act(one, row, value);
    };
    const form = el("form", { class: "glb-form", onsubmit: (event) => { event.preventDefault(); send(); }, onkeydown: (event) => {
      if (event.key === "Enter" && (event.target.tagName === "INPUT" || event.ctrlKey || event.metaKey)) { event.preventDefault(); send(); } } },
      el("b", {}, one.name), el("datalist", { id: choices }, ...about.labels.map((label) => el("option", { value: label }))), ...fields,
      el("div", {}, el("button", { type: "submit" }, "Save"), el("small", {}, " Ctrl+Enter saves, Esc leaves it")));
    view.querySelector("form")?.remove();
    view.prepend(form);
    fields[0].focus();
  }

  async function act(one, row, value = null) {
    try {
      const answer = await backend.act({ row: row.row, name: one.name, value, why: why.value.trim() });
      row.mark = answer.mark.split(", ");
      say("");
    } catch (error) { say(error.message); return; }
    drawList(); drawChosen();
    if (!one.asks && one.name !== "undo") move(1);
  }

  function move(by) {
    const to = at + by;
    if (to >= found.rows.length && offset + size < found.total) { offset += size; ask(0); }
    else if (to < 0 && offset > 0) { offset -= size; ask(-1); }
    else if (to >= 0 && to < found.rows.length) { at = to; drawChosen(); open(); }
  }

  function pressed(event) {
    const typing = ["INPUT", "TEXTAREA", "SELECT"].includes(event.target.tagName) && event.target.type !== "checkbox";
    event.stopPropagation();
    if (event.key === "Escape") {
      if (view.querySelector("form")) view.querySelector("form").remove(); else root.classList.remove("glb-open");
      root.focus(); return;
    }
    if (event.target === search && (event.key === "Enter" || event.key === "ArrowDown")) { event.preventDefault(); root.focus(); return; }
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    const does = { j: () => move(1), ArrowDown: () => move(1), k: () => move(-1), ArrowUp: () => move(-1), o: () => root.classList.toggle("glb-open"),
      "/": () => search.focus(), PageDown: () => { if (offset + size < found.total) { offset += size; ask(); } },
      PageUp: () => { if (offset) { offset = Math.max(0, offset - size); ask(); } } };
    if (!["BUTTON", "SUMMARY"].includes(event.target.tagName)) does.Enter = does.o;
    const action = about.actions.find((one) => one.key === event.key);
    if (action || does[event.key]) { event.preventDefault(); action ? begin(action) : does[event.key](); }
  }

  ask();
  return () => { ended = true; document.removeEventListener("pointerover", heard, true); root.remove(); };
}

// In a notebook: every call is a message to the kernel, answered under its number.
const inNotebook = (begin) => ({ render({ model, el: place }) {
  const waiting = new Map();
  const heard = (message) => {
    const waits = waiting.get(message.number);
    if (!waits) return;
    waiting.delete(message.number);
    message.error ? waits.reject(new Error(message.error)) : waits.resolve(message.answer);
  };
  const call = (does) => (given) => new Promise((resolve, reject) => {
    const number = crypto.getRandomValues(new Uint32Array(2)).join("-");
    waiting.set(number, { resolve, reject });
    model.send({ number, does, with: given });
    setTimeout(() => waiting.has(number) && reject(new Error("The kernel has not answered yet: it is busy, or must be started and this cell run again.")), 15000);
  });
  model.on("msg:custom", heard);
  const end = begin(place, model.get("about"), call, model);
  return () => { model.off("msg:custom", heard); end(); };
} });
const browser = inNotebook((place, about, call) => mount(place, about, { ask: call("ask"), open: call("open"), act: call("act"), save: call("save") }));

// In a file: the rows are in it, packed; decisions are kept by this browser and downloaded as JSON lines.
async function unpacked(id) {
  const text = document.getElementById(id).textContent;
  const bytes = Uint8Array.fromBase64 ? Uint8Array.fromBase64(text) : Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
}

export async function openFile() {
  const about = JSON.parse(document.getElementById("about").textContent), index = JSON.parse(await unpacked("index"));
  const total = about.total, chunks = new Map(), kept = `genesis-browser ${about.title} ${total}`, names = about.filters.map((one) => one.name);
  let decided = [], unpacking = null;
  const texts = () => unpacking ??= unpacked("folded").then((all) => {
    const starts = new Int32Array(total + 1);
    for (let row = 1, from = 0; row <= total; row++) starts[row] = from = row === total ? all.length + 1 : all.indexOf("\n", from) + 1;
    return { all, starts };
  });
  try { decided = JSON.parse(localStorage.getItem(kept) || "[]"); } catch { /* no store for files here */ }
  const marks = (index.mark || []).map((words) => words.join(", "));
  const marked = (row, name) => {
    const others = name === "undo" ? [] : (marks[row] || "").split(", ").filter((one) => one && one !== name && !(["keep", "drop"].includes(name) && ["keep", "drop"].includes(one)));
    const all = name === "undo" ? [] : [...others, name];
    marks[row] = about.actions.map((one) => one.name).filter((one) => all.includes(one)).join(", ");
    return marks[row];
  };
  decided.forEach((one) => marked(one.row, one.action));
  const columns = Object.fromEntries(about.filters.map(({ name, kind }) => [name,
    name === "mark" ? (row) => (marks[row] || "").split(", ") : kind === "value" ? (row) => index[name].values[index[name].codes[row]] : (row) => index[name][row]]));

  async function looked(words) {
    const parts = wanted(words);
    if (!parts.length || !total) return null;
    const { all, starts } = await texts(), hits = new Uint8Array(total);
    for (const [n, part] of parts.entries()) {
      for (let from = all.indexOf(part), row = 0; from >= 0; from = all.indexOf(part, starts[row + 1])) {
        while (starts[row + 1] <= from) row++;
        if (hits[row] === n) hits[row] = n + 1;
        if (row + 1 >= total) break;
      }
    }
    return hits.map((n) => (n === parts.length ? 1 : 0));
  }

  async function ask({ where, words, offset, limit, either }) {
    const hits = await looked(words), missed = new Uint32Array(total);  // a bit for each filter
    let used = 0;
    names.forEach((name, i) => {
      const chosen = where[name], kind = about.filters[i].kind, value = columns[name];
      if (!chosen) return;
      const low = chosen.from ?? null, high = chosen.to ?? null, ranged = kind === "number" || kind === "date";
      const picked = ranged ? null : new Set(chosen), within = (v) => v != null && (low === null || v >= low) && (high === null || v <= high);
      const fits = kind === "number" ? within : kind === "date" ? (v) => (v || []).some(within) : kind === "value" ? (v) => picked.has(v ?? "") : (v) => (v || []).some((one) => picked.has(one ?? ""));
      if (ranged && low === null && high === null) return;
      used |= 1 << i;
      for (let row = 0; row < total; row++) if (!fits(value(row))) missed[row] |= 1 << i;
    });
    const rows = [], left = (row, of) => (!hits || hits[row]) && (!of || (either ? (missed[row] & of) !== of : !(missed[row] & of)));
    for (let row = 0; row < total; row++) if (left(row, used)) rows.push(row);
    const counts = {};
    names.forEach((name, i) => {
      const value = columns[name], kind = about.filters[i].kind, each = new Map();
      let low = null, high = null;
      for (let row = 0; row < total; row++) {
        if (!left(row, used & ~(1 << i))) continue;
        const v = value(row);
        if (kind === "number" || kind === "date") { for (const one of kind === "date" ? v || [] : [v]) if (one != null) { low = low === null || one < low ? one : low; high = high === null || one > high ? one : high; } }
        else for (const one of kind === "value" ? [v] : v || []) each.set(one, (each.get(one) || 0) + 1);
      }
      counts[name] = kind === "number" || kind === "date" ? { low, high } : [...each].sort((a, b) => b[1] - a[1]).slice(0, 300);
    });
    const shown = rows.slice(offset, offset + limit).map((row) => ({ row, key: index.key[row], text: index.text[row], mark: (marks[row] || "").split(", "),
      ...Object.fromEntries(names.map((name) => [name, columns[name](row)])) }));
    return { total: rows.length, offset, rows: shown, counts };
  }

  async function open({ row, page = 0 }) {
    const number = Math.floor(row / about.chunk);
    if (!chunks.has(number)) chunks.set(number, JSON.parse(await unpacked(`chunk${number}`)));
    const found = chunks.get(number)[row % about.chunk];
    return { ...found, row, html: found.html[page], more: page + 1 < found.html.length };
  }

  const who = el("input", { placeholder: "your name", "aria-label": "your name", class: "glb-who" });
  async function act({ row, name, value, why }) {
    decided.push({ row, record: index.key[row], action: name, value, why, by: who.value.trim(), at: new Date().toISOString() });
    try { localStorage.setItem(kept, JSON.stringify(decided)); } catch { /* it is still in this page */ }
    return { row, mark: marked(row, name) };
  }
  const save = () => {
    const lines = decided.map((one) => JSON.stringify({ ...one, by: one.by || who.value.trim() }) + "\n");
    const link = el("a", { href: URL.createObjectURL(new Blob(lines, { type: "application/jsonl" })), download: "decisions.jsonl" });
    link.click();
  };
  const tools = about.actions.length ? [who, el("button", { type: "button", onclick: save, title: "genesis dataset apply takes the file" }, "download decisions")] : [];
  mount(document.getElementById("browser"), { ...about, saved: null }, { ask, open, act, tools });
  document.querySelector(".glb").focus();
  setTimeout(texts, 500);  // so that the first search does not wait
}
