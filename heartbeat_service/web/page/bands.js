// The bands above everything: no line, a restart, a mass loss, a node
// that is gone. Knows no single client.

import { button, h, write } from "./dom.js";
import { glyph } from "./glyphs.js";
import { T, clock, minuteSecond, span } from "./texts.js";

/** A restart is told for so long, in ms, if nobody says that it was seen. */
const LONGEST = 600_000;

/** Draws the bands that apply now. */
export function bands(app, element) {
  const shown = { noLine: noLine(app), restart: restart(app), massLoss: massLoss(app), nodeGone: nodeGone(app) };

  element.setAttribute("aria-label", T.bands.label);

  function drawAll() {
    const now = Object.values(shown).filter((band) => band.applies());
    for (const band of now) band.draw();
    const boxes = now.map((band) => band.box);
    if (boxes.length !== element.children.length || boxes.some((box, i) => box !== element.children[i])) {
      element.replaceChildren(...boxes);
    }
  }

  setInterval(drawAll, 200);
  return { draw: drawAll };
}

function band(kind, sign, heading, text, ...end) {
  return h("section", { class: `band ${kind}` }, glyph(sign), h("div", {}, heading, text), h("div", { class: "end" }, ...end));
}

function noLine(app) {
  const [heading, text, waiting] = [h("h2"), h("p"), h("span", { class: "wait" })];
  const again = button("", () => app.line.open(), T.bands.tryNow);
  return {
    box: band("cutoff", "noline", heading, text, waiting, again),
    applies: () => app.line.state === "lost",
    draw() {
      const { since, retryAt, refusal } = app.line;
      const wait = Math.ceil((retryAt - performance.now()) / 1000);
      write(heading, since === null ? T.bands.neverLine : T.bands.noLine(clock(since), span(app.now() - since)));
      write(text, refusal ? T.bands.refused(refusal) : since === null ? T.bands.neverText : T.bands.noLineText);
      write(waiting, wait > 0 ? T.bands.again(wait) : T.bands.trying);
    },
  };
}

function restart(app) {
  const [heading, text] = [h("h2"), h("p")];
  let seen = null;
  const dismiss = () => (seen = app.listing.restartedAt);
  return {
    box: band("note", "reconnect", heading, text, button("", dismiss, T.bands.good)),
    applies: () => app.listing.restartedAt !== seen && app.now() - app.listing.restartedAt < LONGEST && !app.stale,
    draw() {
      const [what, how] = app.nodes.names.length + app.nodes.gone.size > 1
        ? [T.bands.another, T.bands.anotherText] : [T.bands.restart, T.bands.restartText];
      write(heading, what(clock(app.listing.restartedAt)));
      write(text, how);
    },
  };
}

function nodeGone(app) {
  const [heading, text] = [h("h2"), h("p")];
  const last = () => [...app.nodes.gone.values()].at(-1);
  return {
    box: band("warn", "late", heading, text, button("", () => app.nodes.gone.clear(), T.bands.good)),
    applies: () => app.nodes.gone.size > 0 && !app.stale,
    draw() {
      const { node, clients, at } = last();
      write(heading, T.nodes.goneSince(node, clock(at)));
      write(text, T.nodes.goneText(clients, app.nodes.names));
    },
  };
}

function massLoss(app) {
  const [heading, text, left, drain] = [h("h2"), h("p"), h("span", { class: "big" }), h("i", { class: "drain" })];
  const show = button("", () => app.set({ view: "table", filter: "attention", tab: "clients" }), T.bands.show);
  const letGo = button("danger", () => app.hands.letGo(), T.bands.letGo);
  const box = band("mass", "held", heading, text, left, show, letGo);
  box.append(drain);
  return {
    box,
    applies: () => app.model.hold !== null && !app.stale,
    draw() {
      const { hold, counts } = app.model;
      const [now, whole] = [app.now(), hold.until - hold.since];
      write(heading, T.bands.massLoss(clock(hold.since), counts.held, counts.late));
      write(text, T.bands.massLossText(clock(hold.until)));
      write(left, minuteSecond(hold.until - now + 999));
      drain.style.transform = `scaleX(${Math.max(0, Math.min(1, (hold.until - now) / whole)).toFixed(4)})`;
    },
  };
}
