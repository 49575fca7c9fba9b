// The foot while nobody is selected: what each sign means. Knows no client.

import { h } from "./dom.js";
import { glyph } from "./glyphs.js";
import { T } from "./texts.js";

/** Fills the foot, unless it is there already. */
export function legend(foot) {
  if (foot.firstChild?.classList?.contains("leg")) return;
  foot.replaceChildren(
    ...Object.entries(T.legend).map(([name, word]) =>
      h("span", { class: "leg" }, glyph(name, `c-${name}`), h("span", {}, word))),
    h("span", { class: "end" }, T.legendHint),
  );
}
