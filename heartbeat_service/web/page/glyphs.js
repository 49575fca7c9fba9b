// The signs as shapes of 16 by 16, told apart by their outline alone: as SVG in the page,
// as Path2D on a canvas. Knows what a sign is called, not when it is shown.

const DISC = "M8 1.5a6.5 6.5 0 1 0 0 13a6.5 6.5 0 1 0 0-13Z";
const HOLE = "M8 3.200a4.8 4.8 0 1 1 0 9.600a4.8 4.8 0 1 1 0-9.600Z";
const SHAPES = {
  UNCALIBRATED: DISC + HOLE,
  CALIBRATED: `${DISC}M8 3.200a4.8 4.8 0 0 1 0 9.600Z`,
  RUNNING: `${DISC}M6.2 4.800v6.400L11.5 8Z`,
  late: "M8 .8 15.6 14.600H.4ZM7.1 5.600v4.600h1.800V5.600ZM7.1 11.200v1.800h1.800v-1.800Z",
  held: "M2.5 1h11A1.5 1.5 0 0 1 15 2.500v11a1.5 1.5 0 0 1-1.5 1.500h-11A1.5 1.5 0 0 1 1 13.500v-11A1.5 1.5 0 0 1 2.5 1ZM5 4.200v7.600h2.100V4.200ZM8.9 4.200v7.600H11V4.200Z",
  flapping: "M1 9.5 4.4 4l3.3 6L11 4l4 6.2-1.6 1.100L11 7.400l-3.3 6.200L4.4 7.600l-1.8 3Z",
  timebomb: "M3.2 1.2 8 6l4.8-4.8 2 2L10 8l4.8 4.8-2 2L8 10l-4.8 4.8-2-2L6 8 1.2 3.200Z",
  kick: "M8 1.5 14.5 9.500h-13ZM1.5 11.500h13v2.800h-13Z",
  goodbye: "M1 2h6v1.900H2.900v8.200H7V14H1ZM5.6 7H10V4l5 4-5 4V9H5.600Z",
  reconnect: "M8 2a6 6 0 1 0 6 6h-2.100A3.9 3.9 0 1 1 8 4.100V7l5-3.900L8-.6Z",
  differs: "M2 4.600h6.600L10 1.800l1.7.9-.9 1.900H14v2H9.800L8.6 9H14v2H7.600L6 14.200l-1.7-.9L5.4 11H2V9h4.400l1.2-2.400H2Z",
  silent: "M6.2 1.300a7 7 0 1 0 8.5 8.500A5.8 5.8 0 0 1 6.2 1.300Z",
  locked: "M3 7h1V5a4 4 0 0 1 8 0v2h1v8H3ZM6 7h4V5a2 2 0 0 0-4 0Z",
  tick: "M6.2 13.6.9 8.300l1.9-1.9 3.4 3.400L13.4 2.600l1.9 1.900Z",
  noline: "M4.6 3.500A10.4 10.4 0 0 1 15.5 6.200L14 7.800A8.2 8.2 0 0 0 6.4 5.300ZM.5 6.200A10.4 10.4 0 0 1 2.2 4.900L3.8 6.500A8.2 8.2 0 0 0 2 7.800ZM3.6 9.400A5.9 5.9 0 0 1 5.9 8.100L7.7 9.900A3.8 3.8 0 0 0 5.2 11ZM8 11.700a1.7 1.7 0 1 1 0 3.400a1.7 1.7 0 1 1 0-3.400ZM1.9.8 14.9 13.8 13.6 15.1.6 2.100Z",
  list: "M1 2h2.500v2.500H1ZM5.5 2H15v2.500H5.500ZM1 6.800h2.500v2.500H1ZM5.5 6.800H15v2.500H5.500ZM1 11.500h2.500V14H1ZM5.5 11.500H15V14H5.500Z",
  hands: "M2 3.200h6.200a2.2 2.2 0 0 1 4.2 0h2.100v1.700h-2.100a2.2 2.2 0 0 1-4.2 0H2ZM2 11.100h1.600a2.2 2.2 0 0 1 4.2 0h6.700v1.700H7.800a2.2 2.2 0 0 1-4.2 0H2Z",
};

const SVG = "http://www.w3.org/2000/svg";

/** A glyph as an element; it is decoration, the word beside it is what is read out. */
export function glyph(name, more = "") {
  const svg = document.createElementNS(SVG, "svg");
  const path = document.createElementNS(SVG, "path");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("class", `g ${more}`);
  svg.setAttribute("aria-hidden", "true");
  path.setAttribute("fill-rule", "evenodd");
  svg.append(path);
  reshape(svg, name);
  return svg;
}

/** Makes a glyph another one. */
export function reshape(svg, name) {
  if (svg.dataset.glyph === name) return;
  svg.dataset.glyph = name;
  svg.firstChild.setAttribute("d", SHAPES[name]);
}

/** The same shapes for a canvas. */
export const paths = Object.fromEntries(
  Object.entries(SHAPES).map(([name, shape]) => [name, new Path2D(shape)]),
);
