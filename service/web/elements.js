// What the page is made of. Text enters as text only, never as HTML.

const SMALL_PX = 64;

export const whole = new Intl.NumberFormat("en");

export function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

/** An image that the text beside it describes. */
export function thumbnail(address) {
  const image = element("img");
  image.alt = "";
  image.loading = "lazy";
  image.addEventListener("load", () => sharpen(image));
  image.src = address;
  return image;
}

/** A small image, such as a digit, is shown as it is rather than blurred. */
export function sharpen(image) {
  image.classList.toggle("is-small", image.naturalWidth <= SMALL_PX);
}
