// Gathers what has changed and has it drawn, at most once in 100 ms and only when the
// browser draws anyway. Knows not what is drawn.

const PAUSE = 100;

/**
 * @param paint is called with the changes, `ui` and `line` true where everything is to be drawn.
 * @param take gives what has changed since the last time.
 */
export function frame(paint, take) {
  let waiting = false;
  let everything = true;
  let last = -PAUSE;

  function run() {
    waiting = false;
    last = performance.now();
    const changes = { ...take(), ui: everything, line: everything };
    everything = false;
    paint(changes);
  }

  function soon() {
    if (waiting) return;
    waiting = true;
    const pause = last + PAUSE - performance.now();
    if (document.hidden) setTimeout(run, PAUSE * 10);
    else if (pause > 0) setTimeout(() => requestAnimationFrame(run), pause);
    else requestAnimationFrame(run);
  }

  return {
    soon,
    everything() {
      everything = true;
      soon();
    },
  };
}
