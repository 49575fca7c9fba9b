// A long list of which only the rows that are seen exist, and eight before and after: they
// are used again as it scrolls. Knows not what is listed.

const EXTRA = 8;

export class Rows {
  #scroller;
  #box;
  #make;
  #fill;
  #pool = [];
  #items = [];
  #height = 0;
  #first = 0;
  #last = 0;
  #waiting = false;

  /**
   * @param scroller what scrolls; `box` stands in it and is made as high as all rows.
   * @param make makes an empty row, `fill(row, item, index)` gives it a content.
   */
  constructor(scroller, box, make, fill) {
    this.#scroller = scroller;
    this.#box = box;
    this.#make = make;
    this.#fill = fill;
    scroller.addEventListener("scroll", () => this.#soon(), { passive: true });
  }

  /** Shows these, each `height` pixels high. */
  set(items, height) {
    this.#items = items;
    this.#height = height;
    this.#box.style.height = `${items.length * height}px`;
    this.draw();
  }

  /** Fills the rows that are seen anew. */
  draw() {
    const top = this.#scroller.scrollTop - this.#offset();
    this.#first = Math.max(0, Math.floor(top / this.#height) - EXTRA);
    this.#last = Math.min(this.#items.length, Math.ceil((top + this.#scroller.clientHeight) / this.#height) + EXTRA);
    this.#grow(this.#last - this.#first);
    const used = new Set();
    for (const [row, item, index] of this.seen()) {
      this.#put(row, item, index);
      used.add(row);
    }
    for (const row of this.#pool) if (row.hidden === used.has(row)) row.hidden = !used.has(row);
  }

  /** The rows that are seen, as [row, item, index]. */
  *seen() {
    for (let i = this.#first; i < this.#last; i++) yield [this.#pool[i % this.#pool.length], this.#items[i], i];
  }

  /** Scrolls as little as brings a row into sight; `above` pixels at the top are covered. */
  reveal(index, above = 0) {
    const view = this.#scroller, top = this.#offset() + index * this.#height;
    const [highest, lowest] = [top - above, top + this.#height - view.clientHeight];
    if (view.scrollTop > highest) view.scrollTop = highest;
    else if (view.scrollTop < lowest) view.scrollTop = lowest;
    this.draw();
  }

  // Where the box begins in what is scrolled.
  #offset() {
    const [box, view] = [this.#box, this.#scroller].map((one) => one.getBoundingClientRect().top);
    return box - view + this.#scroller.scrollTop;
  }

  #soon() {
    if (this.#waiting) return;
    this.#waiting = true;
    requestAnimationFrame(() => {
      this.#waiting = false;
      this.draw();
    });
  }

  #grow(count) {
    while (this.#pool.length < count) {
      const row = this.#make();
      this.#pool.push(row);
      this.#box.append(row);
    }
  }

  #put(row, item, index) {
    row.style.transform = `translateY(${index * this.#height}px)`;
    this.#fill(row, item, index);
  }
}
