// The map: a dot an item, what is alike together. Pointing at a dot shows its picture, and a click on it is passed on.
// It is for eyes and pointers: whatever can be reached here can be reached by the cards too.

import { element, thumbnail, whole } from "./elements.js";

const NUM_COLOURS = 20; // labels with a colour of their own, the most frequent; the others are grey
const REACH_PX = 24; // how near to a dot is at it
const MARGIN_PX = 22;
const TURN = 2 * Math.PI;

const darkness = window.matchMedia("(prefers-color-scheme: dark)");

export class ItemMap {
  #canvas; #tip; #legend; #note;
  #spots = []; // {id, x, y, label, colour}: x and y as they came, colour a number, -1 for grey
  #bounds = {}; // [least, most] of x and of y
  #numColours = 0;
  #matches = new Set(); // ids of the items to ring
  #label = ""; // the one label to show in colour; all where it is empty
  #shown = null; // the spot whose picture is shown
  #pointer = ""; // what pressed last: mouse, touch or pen

  /** `root` has the map's elements; `pick(id)` is called for the dot that was chosen. */
  constructor(root, pick) {
    [this.#canvas, this.#tip, this.#legend, this.#note] = ["canvas", ".tip", ".legend", ".note"].map((one) => root.querySelector(one));
    const canvas = this.#canvas;
    canvas.addEventListener("pointermove", (event) => event.pointerType !== "touch" && this.#show(this.#nearest(event)));
    canvas.addEventListener("pointerleave", (event) => event.pointerType !== "touch" && this.#show(null));
    canvas.addEventListener("pointerdown", (event) => (this.#pointer = event.pointerType));
    canvas.addEventListener("click", (event) => {
      const spot = this.#nearest(event);
      const isFirstTap = this.#pointer === "touch" && spot !== this.#shown; // a finger does not hover: it looks first
      const isPicked = spot && !isFirstTap;
      this.#show(isPicked ? null : spot); // its picture is about to be seen elsewhere, and would hide what is alike
      if (isPicked) pick(spot.id);
    });
    new ResizeObserver(() => this.#draw()).observe(canvas);
    darkness.addEventListener("change", () => this.#draw());
  }

  /** Takes what GET /map answered. */
  fill({ labels, items, num_items }) {
    const counts = new Map();
    for (const [, , , label] of items) if (label !== null) counts.set(label, (counts.get(label) ?? 0) + 1);
    const coloured = [...counts.keys()].sort((one, other) => counts.get(other) - counts.get(one)).slice(0, NUM_COLOURS);
    coloured.sort((one, other) => one - other);
    this.#numColours = coloured.length;
    this.#spots = items.map(([id, x, y, label]) => ({ id, x, y, label: label === null ? null : labels[label], colour: coloured.indexOf(label) }));
    this.#bounds = { x: extent(this.#spots, "x"), y: extent(this.#spots, "y") };
    const names = coloured.map((label, colour) => [labels[label], colour]);
    if (this.#spots.some(({ colour }) => colour < 0)) names.push([coloured.length ? "others" : "no labels", -1]);
    this.#legend.replaceChildren(...names.map(([name, colour]) => legendEntry(name, colour)));
    const some = items.length < num_items ? `${whole.format(items.length)} of the ${whole.format(num_items)} images. ` : "";
    this.#note.textContent = `${some}What is alike lies together. Point at a dot to see its picture, click to search by it.`;
    this.#canvas.setAttribute("aria-label", `Map of ${whole.format(items.length)} images: a dot each, coloured by label`);
    this.#draw();
  }

  /** Rings these items, and shows only them, or else only one label's, in full colour. */
  highlight(ids, label) {
    this.#matches = new Set(ids);
    this.#label = label;
    this.#draw();
  }

  /** From the map's x and y to pixels of the canvas: the dots fill it, and keep their proportions. */
  #scale() {
    const { clientWidth: width, clientHeight: height } = this.#canvas;
    const [[left, right], [top, bottom]] = [this.#bounds.x, this.#bounds.y];
    const factor = Math.min((width - 2 * MARGIN_PX) / (right - left || 1), (height - 2 * MARGIN_PX) / (bottom - top || 1));
    return ({ x, y }) => [width / 2 + factor * (x - (left + right) / 2), height / 2 + factor * (y - (top + bottom) / 2)];
  }

  #nearest({ offsetX, offsetY }) {
    const place = this.#scale();
    let nearest = null;
    let reach = REACH_PX;
    for (const spot of this.#spots) {
      const [x, y] = place(spot);
      const distance = Math.hypot(x - offsetX, y - offsetY);
      if (distance < reach) [nearest, reach] = [spot, distance];
    }
    return nearest;
  }

  #show(spot) {
    if (spot === this.#shown) return;
    this.#shown = spot;
    this.#tip.hidden = !spot;
    this.#canvas.style.cursor = spot ? "pointer" : "";
    if (spot) {
      // A new image: the old one would show its picture until the next has come.
      this.#tip.querySelector(".frame").replaceChildren(thumbnail(`items/${spot.id}/thumbnail`));
      this.#tip.querySelector(".label").textContent = spot.label ?? "no label";
      this.#placeTip(...this.#scale()(spot));
    }
    this.#draw();
  }

  /** Beside the dot, on the side where there is room. */
  #placeTip(x, y) {
    const { clientWidth: width, clientHeight: height } = this.#canvas;
    const { offsetWidth, offsetHeight } = this.#tip;
    const left = x + 16 + offsetWidth <= width ? x + 16 : x - 16 - offsetWidth;
    const top = Math.min(Math.max(y - offsetHeight / 2, 6), height - offsetHeight - 6);
    this.#tip.style.left = `${left}px`;
    this.#tip.style.top = `${top}px`;
  }

  #draw() {
    const { clientWidth: width, clientHeight: height } = this.#canvas;
    if (!width || !this.#spots.length) return;
    const ratio = window.devicePixelRatio;
    this.#canvas.width = Math.round(width * ratio);
    this.#canvas.height = Math.round(height * ratio);
    const brush = this.#canvas.getContext("2d");
    brush.scale(ratio, ratio);
    const place = this.#scale();
    const radius = Math.min(Math.max(Math.sqrt((width * height) / this.#spots.length) / 7.5, 1.5), 4.5);
    const style = getComputedStyle(this.#canvas);
    for (const isLit of [false, true]) {
      brush.globalAlpha = isLit ? 0.9 : 0.28;
      for (const [colour, spots] of this.#byColour(isLit)) {
        brush.fillStyle = colour < 0 ? style.getPropertyValue("--quiet") : colourOf(colour, this.#numColours);
        brush.beginPath();
        for (const spot of spots) addDot(brush, place(spot), radius);
        brush.fill();
      }
    }
    brush.globalAlpha = 1;
    brush.strokeStyle = style.getPropertyValue("--ink");
    brush.lineWidth = 2;
    brush.beginPath();
    const ringed = this.#spots.filter((spot) => this.#matches.has(spot.id) || spot === this.#shown);
    for (const spot of ringed) addDot(brush, place(spot), radius + (spot === this.#shown ? 4.5 : 1.5));
    brush.stroke();
    for (const key of this.#legend.querySelectorAll("[data-colour]")) {
      key.style.background = key.dataset.colour < 0 ? "var(--quiet)" : colourOf(Number(key.dataset.colour), this.#numColours);
    }
  }

  /** The spots that are in full colour, or the others, as [colour, spots], grey ones first. */
  #byColour(isLit) {
    const groups = new Map();
    for (const spot of this.#spots) {
      const isThisLit = this.#matches.size ? this.#matches.has(spot.id) : !this.#label || spot.label === this.#label;
      if (isThisLit !== isLit) continue;
      if (!groups.has(spot.colour)) groups.set(spot.colour, []);
      groups.get(spot.colour).push(spot);
    }
    return [...groups].sort(([one], [other]) => one - other);
  }
}

/** Hues evenly around the circle, neighbours of different lightness too. */
function colourOf(number, numColours) {
  const [pale, strong] = darkness.matches ? [0.83, 0.66] : [0.68, 0.5];
  return `oklch(${number % 2 ? pale : strong} 0.15 ${25 + (360 * number) / numColours})`;
}

function addDot(brush, [x, y], radius) {
  brush.moveTo(x + radius, y);
  brush.arc(x, y, radius, 0, TURN);
}

function extent(spots, axis) {
  let [low, high] = [Infinity, -Infinity];
  for (const spot of spots) [low, high] = [Math.min(low, spot[axis]), Math.max(high, spot[axis])];
  return [low, high];
}

function legendEntry(name, colour) {
  const entry = element("li");
  const key = entry.appendChild(element("span", "key"));
  key.dataset.colour = colour;
  entry.append(name);
  return entry;
}
