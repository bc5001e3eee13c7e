// The map: one dot per item, with similar items near each other. Pointing at a dot shows its
// picture. A click on it searches for similar images. The map works only for people who can see it
// and use a pointer. The cards offer the same search to keyboards and screen readers.

import { element, naturally, thumbnail, whole } from "./elements.js";

const NUM_COLOURS = 20; // the most frequent labels have a colour; the other labels are grey
const REACH_PX = 24; // the pointer points at a dot if the distance is at most this
const MARGIN_PX = 22;
const TURN = 2 * Math.PI;

const darkness = window.matchMedia("(prefers-color-scheme: dark)");

export class ItemMap {
  #canvas; #tip; #legend; #note;
  #spots = []; // {id, x, y, label, colour}: x and y from 0 to 1; colour is a number, -1 for grey
  #bounds = {}; // [minimum, maximum] of x and of y
  #numColours = 0;
  #matches = new Set(); // ids of the items with a ring
  #label = ""; // the only label in full colour; if it is empty, all labels are in full colour
  #shown = null; // the spot whose picture is shown
  #pointer = ""; // the kind of the pointer that was pressed last: mouse, touch or pen

  /** `root` contains the map's elements. `pick(id)` is called when the user chooses a dot. */
  constructor(root, pick) {
    this.#canvas = root.querySelector("canvas");
    this.#tip = root.querySelector(".tip");
    this.#legend = root.querySelector(".legend");
    this.#note = root.querySelector(".note");
    const canvas = this.#canvas;
    const hover = (spotAt) => (event) => event.pointerType !== "touch" && this.#show(spotAt(event));
    canvas.addEventListener("pointermove", hover((event) => this.#nearest(event)));
    canvas.addEventListener("pointerleave", hover(() => null));
    canvas.addEventListener("pointerdown", (event) => (this.#pointer = event.pointerType));
    canvas.addEventListener("click", (event) => {
      const spot = this.#nearest(event);
      // A finger cannot hover, so the first tap on a dot shows its picture.
      const isFirstTap = this.#pointer === "touch" && spot !== this.#shown;
      const isPicked = spot && !isFirstTap;
      // The picture of a picked dot would hide its neighbours.
      this.#show(isPicked ? null : spot);
      if (isPicked) pick(spot.id);
    });
    new ResizeObserver(() => this.#draw()).observe(canvas);
    darkness.addEventListener("change", () => this.#draw());
  }

  /** Show the answer of GET /map. */
  fill({ labels, items, num_items }) {
    const counts = new Map();
    for (const [, , , label] of items) {
      if (label !== null) counts.set(label, (counts.get(label) ?? 0) + 1);
    }
    const frequent = [...counts].sort(([, one], [, other]) => other - one).slice(0, NUM_COLOURS);
    const coloured = frequent.map(([label]) => label);
    coloured.sort((one, other) => naturally(labels[one], labels[other]));
    this.#numColours = coloured.length;
    this.#spots = items.map(([id, x, y, label]) => {
      return { id, x, y, label: labels[label] ?? null, colour: coloured.indexOf(label) };
    });
    this.#bounds = { x: extent(this.#spots, "x"), y: extent(this.#spots, "y") };
    const names = coloured.map((label, colour) => [labels[label], colour]);
    if (this.#spots.some(({ colour }) => colour < 0)) {
      names.push([coloured.length ? "others" : "no labels", -1]);
    }
    this.#legend.replaceChildren(...names.map(([name, colour]) => legendEntry(name, colour)));
    const [numShown, numIndexed] = [items.length, num_items].map(whole.format);
    const sample = items.length < num_items ? `${numShown} of the ${numIndexed} images. ` : "";
    this.#note.textContent =
      `${sample}Similar images are near each other. ` +
      "Point at a dot to see its picture. Click it to find similar images.";
    const description = `Map of ${numShown} images: one dot per image, coloured by label`;
    this.#canvas.setAttribute("aria-label", description);
    this.#draw();
  }

  /**
   * Draw rings around these items, and draw only them in full colour. If `ids` is empty, the items
   * with this label are in full colour. If `label` is empty too, all items are in full colour.
   */
  highlight(ids, label) {
    this.#matches = new Set(ids);
    this.#label = label;
    this.#draw();
  }

  /** A function from x and y to pixels. The map fills the canvas and keeps its proportions. */
  #scale() {
    const { clientWidth: width, clientHeight: height } = this.#canvas;
    const [[left, right], [top, bottom]] = [this.#bounds.x, this.#bounds.y];
    const xFactor = (width - 2 * MARGIN_PX) / (right - left || 1);
    const yFactor = (height - 2 * MARGIN_PX) / (bottom - top || 1);
    const factor = Math.min(xFactor, yFactor);
    return ({ x, y }) => [
      width / 2 + factor * (x - (left + right) / 2),
      height / 2 + factor * (y - (top + bottom) / 2),
    ];
  }

  #nearest({ offsetX, offsetY }) {
    const toPixels = this.#scale();
    let nearest = null;
    let reach = REACH_PX;
    for (const spot of this.#spots) {
      const [x, y] = toPixels(spot);
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
      // Use a new image element. The old one would show its picture until the new one is loaded.
      this.#tip.querySelector(".frame").replaceChildren(thumbnail(`items/${spot.id}/thumbnail`));
      this.#tip.querySelector(".label").textContent = spot.label ?? "no label";
      this.#placeTip(...this.#scale()(spot));
    }
    this.#draw();
  }

  /** Put the picture beside the dot, on the side with enough space. */
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
    const toPixels = this.#scale();
    const spacing = Math.sqrt((width * height) / this.#spots.length);
    const radius = Math.min(Math.max(spacing / 7.5, 1.5), 4.5);
    const style = getComputedStyle(this.#canvas);
    for (const isLit of [false, true]) {
      brush.globalAlpha = isLit ? 0.9 : 0.28;
      for (const [colour, spots] of this.#byColour(isLit)) {
        const grey = style.getPropertyValue("--quiet");
        brush.fillStyle = colour < 0 ? grey : colourOf(colour, this.#numColours);
        brush.beginPath();
        for (const spot of spots) addDot(brush, toPixels(spot), radius);
        brush.fill();
      }
    }
    brush.globalAlpha = 1;
    brush.strokeStyle = style.getPropertyValue("--ink");
    brush.lineWidth = 2;
    brush.beginPath();
    const ringed = this.#spots.filter((spot) => this.#matches.has(spot.id) || spot === this.#shown);
    for (const spot of ringed) {
      addDot(brush, toPixels(spot), radius + (spot === this.#shown ? 4.5 : 1.5));
    }
    brush.stroke();
    for (const key of this.#legend.querySelectorAll("[data-colour]")) {
      const colour = Number(key.dataset.colour);
      key.style.background = colour < 0 ? "var(--quiet)" : colourOf(colour, this.#numColours);
    }
  }

  /** The spots in full colour, or the other spots, as [colour, spots]. Grey comes first. */
  #byColour(isLit) {
    const groups = new Map();
    for (const spot of this.#spots) {
      const isOfLabel = !this.#label || spot.label === this.#label;
      const isThisLit = this.#matches.size ? this.#matches.has(spot.id) : isOfLabel;
      if (isThisLit !== isLit) continue;
      if (!groups.has(spot.colour)) groups.set(spot.colour, []);
      groups.get(spot.colour).push(spot);
    }
    return [...groups].sort(([one], [other]) => one - other);
  }
}

/** The hues are evenly spread over the colour circle. Neighbours also differ in lightness. */
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
