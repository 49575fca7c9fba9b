// The row of tools: which view, by what it is grouped or filtered, search, everybody,
// theme, keys. Knows what can be chosen, not what it does.

import { button, h, mark, write } from "./dom.js";
import { help } from "./keys.js";
import { T, number } from "./texts.js";

const CHIPS = ["alive", "attention", "RUNNING", "CALIBRATED", "UNCALIBRATED", "silent", "gone"];

/** Draws the tools into their element. */
export function tools(app, element) {
  const views = ["wall", "table"].map((view) => button("", () => app.set({ view }), T.tools[view]));
  const group = h("select", { class: "field", id: "group", onchange: () => app.set({ group: group.value }) });
  const grouping = h("label", { class: "grouping" }, T.tools.groupBy, group);
  const chips = CHIPS.map((filter) => chip(app, filter));
  const filters = h("div", { class: "chips", role: "group", "aria-label": T.tools.filter }, ...chips.map((one) => one.button));
  const search = h("input", {
    class: "field search", type: "search", id: "search", placeholder: T.tools.search, "aria-label": T.tools.search,
    autocomplete: "off", spellcheck: "false",
    oninput: () => app.set({ search: search.value, ...(search.value && { view: "table" }) }),
  });
  const all = button("", () => app.hands.actOnAll(), T.tools.all);
  const theme = button("quiet", () => app.toggleTheme());
  const keys = button("quiet", () => help(app), T.tools.keys);
  element.setAttribute("aria-label", T.tools.label);
  element.append(
    h("div", { class: "seg", role: "group", "aria-label": T.tools.view }, ...views), grouping, filters,
    h("div", { class: "end" }, search, all, theme, keys),
  );

  function drawGroups() {
    const names = app.model.labels();
    if (app.ui.group && !names.includes(app.ui.group)) names.push(app.ui.group);
    const options = [...names.map((name) => [name, name]), ["", T.none]];
    if (options.length !== group.options.length || options.some(([value], i) => value !== group.options[i].value)) {
      group.replaceChildren(...options.map(([value, word]) => h("option", { value }, word)));
    }
    if (group.value !== (app.ui.group ?? "")) group.value = app.ui.group ?? "";
  }

  return {
    draw() {
      const { model, ui } = app;
      views.forEach((button, i) => mark(button, "aria-pressed", String(ui.view === ["wall", "table"][i])));
      grouping.hidden = ui.view !== "wall";
      filters.hidden = ui.view !== "table";
      if (document.activeElement !== group) drawGroups();
      if (ui.view === "table") for (const one of chips) one.draw();
      if (search.value !== ui.search) search.value = ui.search;
      all.disabled = app.stale || model.counts.alive === 0;
      write(theme, app.theme === "dark" ? T.tools.light : T.tools.dark);
    },
  };
}

function chip(app, filter) {
  const count = h("b");
  const button = h("button", { type: "button", class: "chip", onclick: () => app.set({ filter }) }, T.tools.chip[filter], count);
  const many = ({ counts, gone }) => {
    if (filter === "gone") return gone.size;
    if (filter === "attention") return counts.late + counts.held + counts.flapping;
    return counts[filter];
  };
  return {
    button,
    draw() {
      write(count, number(many(app.model)));
      mark(button, "aria-pressed", String(app.ui.filter === filter));
    },
  };
}
