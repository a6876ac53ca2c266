// The front end of a form: what is chosen or typed is one call of Python, which says what comes of it in `about.state`.

const form = inNotebook((place, about, call, model) => {
  const says = about.says, puts = {}, notes = {};
  const changes = el("span", {}), panel = el("section", {}), ways = el("div", {});
  const reset = el("button", { type: "button", onclick: () => enter(null) }, says.reset);
  const enter = (name, value = null) => {
    panel.replaceChildren(el("div", { role: "status", class: "glf-quiet" }, says.wait));
    call("enter")({ name, value }).then(draw, (error) => panel.replaceChildren(el("div", { role: "alert", class: "glf-alert" }, error.message)));
  };
  const number = (text) => text.trim() === "" || Number.isNaN(Number(text)) ? text : Number(text);

  // Each makes the inputs of one field, of which `put` shows a value.
  function slider(field, changed, name = null) {
    const box = el("input", { type: "number", step: "any", "aria-label": name ?? field.name, onchange: () => { bar.value = box.value; changed(number(box.value)); } });
    const bar = el("input", { type: "range", min: field.min, max: field.max, step: 1, tabindex: "-1", "aria-hidden": "true", oninput: () => { box.value = bar.value; }, onchange: () => changed(Number(bar.value)) });
    const line = el("div", { class: "glf-slider" }, name && el("span", {}, name.replaceAll("_", " ")), field.min != null ? bar : null, box, el("small", {}, field.unit ?? ""));
    return { line, put: (value) => { box.value = bar.value = value; box.value = value; } };
  }
  const makes = {
    number: (field, changed) => slider(field, changed),
    shares: (field, changed) => {
      let now = {};
      const told = el("small", { class: "glf-quiet" });
      const say = () => { const sum = Object.values(now).reduce((a, b) => a + Number(b), 0) || 1; told.textContent = "so: " + Object.entries(now).map(([name, part]) => `${name} ${Math.round(100 * part / sum)}%`).join(", "); };
      const bars = Object.keys(field.value).map((name) => [name, slider({ ...field, min: 0, max: 100 }, (part) => { now = { ...now, [name]: part }; say(); changed(now); }, name)]);
      return { line: el("div", {}, ...bars.map(([, bar]) => bar.line), told), put: (value) => { now = value; bars.forEach(([name, bar]) => bar.put(value[name])); say(); } };
    },
    choice: (field, changed) => {
      const line = el("select", { "aria-label": field.name, onchange: () => changed(field.options[line.selectedIndex][1]) }, ...field.options.map(([label]) => el("option", {}, label)));
      return { line, put: (value) => { line.selectedIndex = field.options.findIndex(([, one]) => one === value); } };
    },
    several: (field, changed) => {
      const line = el("select", { multiple: true, size: Math.min(field.options.length, 8), "aria-label": field.name, onchange: () => changed([...line.selectedOptions].map((one) => one.value)) }, ...field.options.map(([name]) => el("option", {}, name)));
      return { line, put: (value) => [...line.options].forEach((one) => { one.selected = value.includes(one.value); }) };
    },
    check: (field, changed) => {
      const box = el("input", { type: "checkbox", onchange: () => changed(box.checked) });
      return { line: el("label", {}, box, " yes"), put: (value) => { box.checked = value; } };
    },
    text: (field, changed) => {
      const line = el("input", { type: "text", "aria-label": field.name, onchange: () => changed(line.value) });
      return { line, put: (value) => { line.value = value; } };
    },
    lines: (field, changed) => {
      const line = el("textarea", { rows: 2, placeholder: field.hint, "aria-label": field.name, onchange: () => changed(line.value) });
      return { line, put: (value) => { line.value = value; } };
    },
    fixed: (field) => ({ line: el("div", {}, field.value), put: () => {} }),
  };
  const rows = about.fields.map((field) => {
    const { line, put } = makes[field.kind](field, (value) => enter(field.name, value));
    puts[field.name] = put;
    notes[field.name] = el("small", { class: "glf-alert" });
    return el("div", { class: "glf-row", "data-field": field.name }, el("div", {}, el("b", {}, field.name.replaceAll("_", " ")), " ", el("span", { class: "glf-quiet" }, field.about)), line, notes[field.name]);
  });
  const first = about.basics.length ? about.basics.map((name) => rows.find((row) => row.dataset.field === name)).filter(Boolean) : rows;
  const rest = rows.filter((row) => !first.includes(row));
  place.append(el("div", { class: "glf", "data-lm-suppress-shortcuts": "true" },
    el("div", { class: "glf-fields" }, ...first, rest.length ? el("details", {}, el("summary", {}, says.more), ...rest) : null),
    el("div", { class: "glf-side" }, el("div", {}, changes, reset), panel, ways)));

  function draw() {
    const state = model.get("about").state;
    if (!state) return;
    for (const field of about.fields) {
      puts[field.name](field.name in state.entered ? state.entered[field.name] : field.value);
      notes[field.name].textContent = field.name === state.fault ? says.see : "";
    }
    changes.replaceChildren(...(state.changed.length ? [`${says.changed} `, el("b", {}, state.changed.join(", ").replaceAll("_", " "))] : []));
    reset.hidden = !state.changed.length;
    panel.innerHTML = state.told;  // Python escapes what is not ours
    if (says.button) panel.append(el("button", { class: "jupyter-button mod-primary", style: "width:auto", title: says.run, disabled: panel.querySelector("[role=alert]") !== null, "data-commandlinker-command": "notebook:run-all-below" }, says.button));
    ways.replaceChildren(...state.ways.map(([label, name, value]) => el("button", { type: "button", onclick: () => enter(name, value) }, label)));
  }
  model.on("change:about", draw);
  draw();
  return () => model.off("change:about", draw);
});
