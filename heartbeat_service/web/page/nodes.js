// The nodes that are one service: a line with their names where there are several, and
// what is known of one that is gone, from two looks at them. Knows no client.

import { h } from "./dom.js";
import { T, number } from "./texts.js";

/** Between two looks, in ms: where there are several, where there is one, without a line. */
const [SOON, SELDOM, NO_LINE] = [3000, 30_000, 1000];
/** One that is gone is told of for so long, in ms, if nobody says that it was seen. */
const LONGEST = 600_000;

/** Draws the line into its element; `gone` are those that went lately, by name. */
export function nodes(app, element) {
  let list = [];
  let drawn = "";
  const gone = new Map();
  element.setAttribute("aria-label", T.nodes.label);

  async function look() {
    let wait = NO_LINE;
    if (app.line.state === "live" && !document.hidden) {
      try {
        take((await app.service.get("/nodes")).nodes);
      } catch (error) {
        if (!error.code) throw error; // the line tells of it
      }
      wait = list.length + gone.size > 1 ? SOON : SELDOM;
    }
    setTimeout(look, wait);
  }

  function take(now) {
    const here = new Set(now.map(({ node }) => node));
    for (const { node, clients } of list) {
      if (here.has(node)) continue;
      gone.set(node, { node, clients, at: app.now() });
      app.say(T.nodes.gone(node));
    }
    for (const [name, { at }] of gone) if (here.has(name) || app.now() - at > LONGEST) gone.delete(name);
    list = now;
    app.soon();
  }

  look();
  return {
    gone,
    get names() {
      return list.map(({ node }) => node);
    },
    draw() {
      const shown = JSON.stringify(list.map(({ node, clients, self }) => [node, clients, self]));
      if (shown === drawn) return;
      drawn = shown;
      element.hidden = list.length < 2;
      element.replaceChildren(h("h2", {}, T.nodes.label), h("ul", {}, list.map((one) =>
        h("li", { class: one.self ? "self" : "" }, h("span", { class: "id" }, one.node),
          h("b", {}, number(one.clients)), one.self && h("small", {}, T.nodes.answers)))));
    },
  };
}
