// The head of the page: the verdict in one line, everybody in numbers, the clock and the
// line; the same verdict as the tab's title. Knows how to judge the counts, nothing of
// single clients.

import { h, mark, write } from "./dom.js";
import { glyph, reshape } from "./glyphs.js";
import { T, clock, hourMinute, number, span } from "./texts.js";

const COUNTS = [
  ["alive", null], ["RUNNING", "RUNNING"], ["CALIBRATED", "CALIBRATED"], ["UNCALIBRATED", "UNCALIBRATED"],
  ["late", "late"], ["held", "held"], ["gone", null],
];
const MANY_LOST = 10;
/** A worse verdict is cried. */
const WORSE = { well: 0, warn: 1, bad: 2 };

/** The first that applies: {mood, glyph, line, second}. */
export function judge(app) {
  const { counts, hold, store } = app.model;
  if (app.stale) return unsure(app);
  if (!counts.alive && !app.model.clients.size) return nobody(app);
  const lost = app.model.lostRecently();
  if (hold) return massLoss(counts, lost);
  if (store) return { mood: "bad", glyph: "late", line: T.top.store, second: store };
  const troubles = [
    counts.late && T.top.late(counts.late), counts.held && T.top.held(counts.held),
    counts.flapping && T.top.flapping(counts.flapping), lost && T.top.lost(lost),
  ].filter(Boolean);
  if (!troubles.length) return counts.alive ? well(app) : nobody(app);
  return {
    mood: lost >= MANY_LOST ? "bad" : "warn", glyph: counts.late || counts.held || lost ? "late" : "flapping",
    line: troubles.join(", "), second: whereMost(app.model, app.ui),
  };
}

const calm = (sign, line, second = "") => ({ mood: "well", glyph: sign, line, second });

// What stands there isn't fresh, or isn't there yet.
function unsure(app) {
  if (app.line.state === "live") return calm("reconnect", T.top.catchingUp, T.top.listing);
  if (!app.model.complete && app.line.state !== "lost") return calm("UNCALIBRATED", T.top.connecting);
  return lostLine(app);
}

function lostLine({ model, line }) {
  const { alive, RUNNING } = model.counts;
  const second = line.since === null ? T.top.neverLive : T.top.lastKnown(clock(line.since), alive, RUNNING);
  return { mood: "bad", glyph: "noline", line: T.top.unknown, second };
}

function massLoss(counts, lost) {
  const second = [T.top.network, counts.flapping && T.top.flapping(counts.flapping), lost && T.top.lost(lost)];
  return {
    mood: "bad", glyph: "held", line: T.top.massLoss(counts.late + counts.held, counts.alive),
    second: second.filter(Boolean).join(" · "),
  };
}

function nobody({ model }) {
  const [last] = model.goneList();
  if (!last) return calm("UNCALIBRATED", T.top.empty, T.top.listening);
  return calm("UNCALIBRATED", T.top.nobody, T.top.lastWent(clock(last.at)));
}

function well({ model, now }) {
  const { wellSince: since } = model;
  return calm("tick", T.top.well, since === null ? "" : T.top.since(hourMinute(since), span(now() - since)));
}

const needy = ({ late, held, flapping }) => late + held + flapping;

function whereMost(model, ui) {
  const all = needy(model.counts);
  const rest = T.top.rest(model.counts.alive - all);
  if (all < 2 || model.groupedBy === null) return rest;
  const [worst] = [...model.groups.values()].sort((a, b) => needy(b.counts) - needy(a.counts));
  const most = needy(worst.counts);
  if (most < 2 || most * 2 < all) return rest;
  return T.top.most(T.group(ui.group, worst.key), most, all);
}

/** Draws the head into its element. */
export function top(app, element) {
  const face = glyph("UNCALIBRATED");
  const [line, second] = [h("h1"), h("p")];
  const verdict = h("div", { class: "verdict well" }, face, h("div", {}, line, second));
  const numbers = new Map(COUNTS.map(([name, sign]) => [name, countOf(name, sign)]));
  const [time, link] = [h("div", { class: "clock" }), h("span")];
  element.append(
    verdict,
    h("dl", { class: "counts", "aria-label": T.top.counts }, ...[...numbers.values()].map((one) => one.box)),
    h("div", { class: "line" }, time, h("div", { class: "link" }, h("span", { class: "dot" }), link)),
  );
  let told = { mood: "well", glyph: "" };

  function drawVerdict() {
    const now = judge(app);
    mark(verdict, "class", `verdict ${now.mood}`);
    reshape(face, now.glyph);
    write(line, now.line);
    write(second, now.second);
    tell(now);
    document.title = titleOf(app, now.mood);
  }

  // Worse, or a mass loss: at once. All well again: when there is time.
  function tell(now) {
    const massLoss = now.glyph === "held" && told.glyph !== "held";
    if (WORSE[now.mood] > WORSE[told.mood] || massLoss) app.cry(now.line);
    else if (now.glyph === "tick" && told.mood !== "well") app.say(now.line);
    told = now;
  }

  function drawCounts() {
    const { counts, gone } = app.model;
    for (const [name, one] of numbers) {
      const n = name === "gone" ? gone.size : counts[name];
      write(one.value, number(n));
      mark(one.box, "class", `${n ? "on" : "zero"} ${name}`);
    }
  }

  function drawClock() {
    const stopped = app.stale && app.line.since !== null;
    write(time, clock(stopped ? app.line.since : app.now()));
    write(link, app.line.state === "live" && app.stale ? T.top.catchingUp : T.top.link[app.line.state]);
  }

  setInterval(drawClock, 250);
  return {
    draw() {
      drawVerdict();
      drawCounts();
      drawClock();
    },
  };
}

function countOf(name, sign) {
  const value = h("dd");
  const box = h("div", {}, h("dt", {}, sign && glyph(sign), T.top.count[name]), value);
  return { box, value };
}

function titleOf({ model, stale }, mood) {
  if (stale && model.complete) return T.top.title(T.top.titleNoLine);
  if (mood === "well") return T.page.name;
  const { late, held, flapping } = model.counts;
  const lost = model.lostRecently();
  if (late + held) return T.top.title(T.top.late(late + held));
  if (model.store) return T.top.title(T.top.store);
  return T.top.title(lost ? T.top.lost(lost) : T.top.flapping(flapping));
}
