// Functions that create elements of the page, and that format numbers and names.
// Texts are inserted as text only, never as HTML.

const SMALL_PX = 64;

export const whole = new Intl.NumberFormat("en");

/** Compares names so that "label 2" comes before "label 10". */
export const naturally = new Intl.Collator("en", { numeric: true }).compare;

export function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

/** An image without a description, because the text beside it describes it. */
export function thumbnail(address) {
  const image = element("img");
  image.alt = "";
  image.loading = "lazy";
  image.addEventListener("load", () => sharpen(image));
  image.src = address;
  return image;
}

/** Append an empty bar for the probability of a class. */
export function appendBar(bars) {
  const bar = element("li");
  const track = element("span", "track");
  const fill = track.appendChild(element("span", "fill"));
  fill.style.width = "0";
  bar.append(element("span", "name"), element("span", "percent"), track);
  bars.append(bar);
  bar.getBoundingClientRect(); // computes the layout with width 0, so that the growth is animated
  return bar;
}

/** Show a small image, such as a digit, with sharp pixels instead of blurring it. */
export function sharpen(image) {
  image.classList.toggle("is-small", image.naturalWidth <= SMALL_PX);
}

export function percent(probability) {
  const digits = probability > 0.9995 || probability < 0.0005 ? 0 : 1;
  return `${(100 * probability).toFixed(digits)}%`;
}

export function distanceText(distance) {
  return distance.toFixed(distance < 2 ? 3 : distance < 100 ? 2 : 0);
}

export function counted(number, one, several = `${one}s`) {
  return `${whole.format(number)} ${number === 1 ? one : several}`;
}
