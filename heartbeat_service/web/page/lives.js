// A client's lives as bars on an axis of time: where each bar, sign and mark stands
// (`axis`, pure), and the picture of it. Knows no service: the drawer brings the lives,
// newest first, as {began, ended, reason}, in milliseconds; `ended` is null for the present.

import { glyph } from "./glyphs.js";
import { T, hourMinute } from "./texts.js";

const MINUTE = 60e3, HOUR = 60 * MINUTE;

/** How long an axis may be, and how far apart its marks stand. */
export const SPANS = [
  { long: 15 * MINUTE, mark: 3 * MINUTE },
  { long: HOUR, mark: 10 * MINUTE },
  { long: 6 * HOUR, mark: HOUR },
  { long: 24 * HOUR, mark: 4 * HOUR },
];
const THIN = 3, APART = 13, LABEL = 44;

/** The shortest with three ended lives; where there are fewer, with those that there are. */
export function chooseSpan(lives, now) {
  const ended = (long) => lives.filter((l) => l.ended && now - l.ended < long).length;
  const want = Math.min(3, ended(SPANS.at(-1).long));
  return SPANS.find((s) => ended(s.long) >= want);
}

function bars(lives, x, since, now) {
  let last = Infinity;
  return lives.filter((l) => (l.ended ?? now) > since).map((life) => {
    const end = Math.max(THIN, x(life.ended ?? now)), start = Math.min(x(life.began), end - THIN);
    const sign = !!life.ended && last - end >= APART;
    if (sign) last = end;
    return { life, x: start, width: end - start, end, sign };
  });
}

function marks(x, since, now, every) {
  const zone = new Date(now).getTimezoneOffset() * MINUTE, found = [];
  for (let t = Math.ceil((since - zone) / every) * every + zone; t < now; t += every) {
    found.push({ x: x(t), t, named: x(t) >= LABEL / 2 && x(now) - x(t) >= LABEL });
  }
  return found;
}

/**
 * Where everything stands on an axis of `width` that ends now. No two signs are nearer
 * than 13, the newest come first; no bar is narrower than 3.
 */
export function axis(lives, span, now, width) {
  const since = now - span.long, x = (t) => Math.max(0, (t - since) / span.long * width);
  return { bars: bars(lives, x, since, now), marks: marks(x, since, now, span.mark) };
}

const NS = "http://www.w3.org/2000/svg";
function shape(name, attributes, ...inside) {
  const made = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...inside);
  return made;
}

const TOP = 22, HIGH = 26, BOTTOM = 54, RIGHT = 14;

function barShapes({ life, x, width, end, sign }) {
  const kind = `l-${life.reason ?? "now"}`, made = [];
  made.push(shape("rect", { class: `${kind} bar`, x, y: TOP, width, height: HIGH, rx: 2 }));
  if (!life.ended) return made;
  made.push(shape("rect", { class: `${kind} cap`, x: Math.max(x, end - THIN), y: TOP, width: THIN, height: HIGH }));
  if (sign) {
    const g = glyph(life.reason, kind);
    for (const [key, value] of Object.entries({ x: end - 7.5, y: 4, width: 12, height: 12 })) g.setAttribute(key, value);
    made.push(g);
  }
  return made;
}

function markShapes({ x, t, named }) {
  const line = shape("line", { class: "mark", x1: x, x2: x, y1: TOP, y2: BOTTOM });
  return named ? [line, shape("text", { x, y: 68, "text-anchor": "middle" }, hourMinute(t))] : [line];
}

/** The picture, `width` units wide; the table beside it says the same in words. */
export function picture(lives, span, now, width) {
  const long = width - RIGHT, { bars: found, marks: lines } = axis(lives, span, now, long);
  const label = T.drawer.livesLabel(found.length, T.drawer.spans[SPANS.indexOf(span)]);
  return shape("svg", { class: "lives", viewBox: `0 0 ${width} 74`, role: "img", "aria-label": label },
    shape("rect", { class: "track", x: 0, y: TOP, width: long, height: HIGH, rx: 3 }),
    ...found.flatMap(barShapes), ...lines.flatMap(markShapes),
    shape("line", { class: "nowline", x1: long, x2: long, y1: 16, y2: BOTTOM }),
    shape("text", { x: width, y: 68, "text-anchor": "end" }, T.drawer.now));
}
