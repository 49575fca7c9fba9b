// Who has gone in the last hour, the last first; many of one group that went the same way
// within a minute of each other are one entry. Knows no request.

import { button, cut, h, order, write } from "./dom.js";
import { glyph } from "./glyphs.js";
import { T, clock, hourMinute, number, span } from "./texts.js";

const TOGETHER = 60_000;
const MANY = 4;
const MOST = 24;
/** At most once in so long, and once in so long even if nothing happens, in ms. */
const [PAUSE, OLD] = [900, 15_000];

/** Lists of gone clients, the last to go first; those of four and more went together. */
export function bundle(gone, label) {
  const bundles = [];
  const latest = new Map();
  for (const one of gone) {
    const key = `${one.reason}\n${label === null ? "" : (one.labels[label] ?? "")}`;
    const open = latest.get(key);
    if (open && open.at(-1).at - one.at < TOGETHER) open.push(one);
    else {
      const list = [one];
      latest.set(key, list);
      bundles.push(list);
    }
  }
  return bundles.flatMap((list) => (list.length >= MANY ? [list] : list.map((one) => [one]))).sort((a, b) => b[0].at - a[0].at);
}

export function mount(app, element) {
  const count = h("b");
  const list = h("ol", { tabIndex: 0, "aria-label": T.lane.title });
  const nobody = h("li", { class: "nobody" }, T.lane.nobody);
  const more = button("quiet", () => app.set({ view: "table", filter: "gone" }));
  const rest = h("li", { class: "nobody" }, more);
  element.setAttribute("aria-label", T.lane.title);
  element.append(h("h2", {}, T.lane.title, count), list);
  let entries = new Map();
  let drawnAt = -Infinity;
  let stirred = true;

  function drawList() {
    drawnAt = performance.now();
    stirred = false;
    const gone = app.model.goneList();
    const bundles = bundle(gone.slice(0, 2000), app.ui.group || null).slice(0, MOST);
    entries = new Map(bundles.map((those) => {
      const key = keyOf(app, those);
      return [key, entries.get(key) ?? entryOf(app, those)];
    }));
    for (const entry of entries.values()) entry.age();
    const left = gone.length - bundles.reduce((sum, those) => sum + those.length, 0);
    write(more, T.lane.more(left));
    order(list, [...[...entries.values()].map((entry) => entry.element), ...(left ? [rest] : gone.length ? [] : [nobody])]);
  }

  // Not within a frame, which has enough to draw.
  const drawing = setInterval(() => {
    if (!element.isConnected) return clearInterval(drawing);
    const old = performance.now() - drawnAt > OLD && !app.stale;
    if (stirred || old) drawList();
    else if (!app.stale) for (const entry of entries.values()) entry.age();
  }, PAUSE);

  return {
    draw(changes) {
      write(count, number(app.model.gone.size));
      stirred ||= changes.gone;
      if (changes.ui) drawList();
    },
    destroy: () => clearInterval(drawing),
  };
}

// What an entry looks like, but for how long ago it was.
const keyOf = ({ model, ui }, those) =>
  `${ui.group} ${those.map(({ id, at }) => `${id} ${at}`).join()} ${model.lockouts.get(those[0].id)?.until ?? ""}`;

const entryOf = (app, those) => (those.length > 1 ? bunch(app, those) : single(app, those[0]));

const where = ({ ui }, one) => (ui.group ? T.group(ui.group, one.labels[ui.group] ?? null) : "");

function single(app, one) {
  const [word, why] = T.end[one.reason];
  const locked = app.model.lockouts.get(one.id);
  const facts = h("p");
  const element = h("li", { class: one.reason }, glyph(one.reason, `c-${one.reason}`),
    h("button", { type: "button", class: "id", title: one.id, onclick: () => app.open(one.id) }, cut(one.id, 20)),
    h("time", {}, clock(one.at)),
    h("p", {}, h("b", {}, word), `, ${one.reason === "kick" && one.by ? T.by(one.by) : why}`),
    facts,
    locked && h("p", { class: "locked" }, T.lockedUntil(hourMinute(locked.until))));
  const age = () => {
    const all = [T.was(T.state[one.lastState]), where(app, one), T.ago(span(app.now() - one.at))];
    write(facts, all.filter(Boolean).map((fact) => fact.replaceAll(" ", "\u00a0")).join(" · "));
  };
  return { element, age };
}

function bunch(app, those) {
  const [first, last] = [those[0], those.at(-1)];
  const names = those.slice(0, MANY).flatMap((one, i) => [i > 0 && ", ", h("span", { class: "name" }, cut(one.id, 20))]);
  const element = h("li", { class: first.reason }, glyph(first.reason, `c-${first.reason}`),
    h("span", { class: "id many" }, T.lane.many(those.length, T.end[first.reason][0])),
    h("time", {}, clock(first.at)),
    h("p", {}, T.lane.within(where(app, first), span(first.at - last.at))),
    h("p", {}, names, those.length > MANY && ` ${T.lane.more(those.length - MANY)}`));
  return { element, age: () => {} };
}
