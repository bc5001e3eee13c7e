// The page: one picture at a time goes to /classify and /similar, and what comes back is drawn.
// File names, paths and labels are users' data: they enter the page as text only, never as HTML.

import { element, sharpen, thumbnail, whole } from "./elements.js";
import { ItemMap } from "./map.js";

const NUM_CLASSES = 5;
const NUM_MATCHES = 12;
const METRIC_NAMES = { euclidean: "Euclidean", cosine: "cosine", hamming: "codes, Hamming" };

const $ = (id) => document.getElementById(id);

let info = null; // what /info says; the page works without it
let picture = null; // {blob, name} of the last picture asked about
let map = null; // the ItemMap, once it has been opened
let cards = []; // the items whose cards are shown
let asking = new AbortController(); // ends the question under way when another is asked

/** An error to show: a title, and a sentence that helps. */
class Problem extends Error {
  constructor(title, detail) {
    super(detail);
    this.title = title;
  }
}

// Asking

async function call(address, options = {}) {
  let response;
  try {
    response = await fetch(address, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("No answer", "The service cannot be reached, or broke off. Is it running? Then try again.");
  }
  if (response.ok) return response;
  const problem = await response.json().catch(() => ({}));
  throw new Problem(problem.title ?? "It did not work", problem.detail ?? `The service answered with ${response.status}.`);
}

async function getJson(address, options) {
  return (await call(address, options)).json();
}

function post(address, { blob, name }, signal) {
  const body = new FormData();
  body.append("image", blob, name);
  return getJson(address, { method: "POST", body, signal });
}

function classifyAddress() {
  return `classify?${new URLSearchParams({ k: NUM_CLASSES, by: $("by").value })}`;
}

function similarAddress() {
  const query = new URLSearchParams({ k: Math.min(NUM_MATCHES, info?.limits.max_k ?? NUM_MATCHES) });
  if ($("label").value) query.set("label", $("label").value);
  if ($("metric").value) query.set("metric", $("metric").value);
  return `similar?${query}`;
}

/** Runs one question; a later one silently ends it. */
async function ask(question) {
  asking.abort();
  const current = (asking = new AbortController());
  setBusy(true);
  $("problem").hidden = true;
  try {
    await question(current.signal);
  } catch (error) {
    if (current.signal.aborted) return;
    showProblem(error);
    if (!picture) await showExamples().catch(showProblem);
  }
  if (asking === current) setBusy(false);
}

function askAboutFile(file) {
  return ask((signal) => askBoth({ blob: file, name: file.name || "pasted picture" }, signal));
}

/** A click on an indexed image makes its thumbnail the next picture. */
function askAboutItem(item) {
  if ($("drop").getBoundingClientRect().top < 0) window.scrollTo({ top: 0, behavior: "smooth" });
  return ask(async (signal) => {
    const jpeg = await call(item.thumbnail, { signal });
    await askBoth({ blob: await jpeg.blob(), name: item.path.split("/").pop() }, signal);
  });
}

async function askAboutId(id) {
  return askAboutItem(await getJson(`items/${id}`));
}

async function askBoth(asked, signal) {
  const { blob, name } = asked;
  picture = null;
  showPicture(blob, name);
  const limit = info?.limits.max_image_bytes ?? Infinity;
  if (blob.size > limit) {
    throw new Problem("The file is too large", `${name} has ${whole.format(blob.size)} bytes; at most ${whole.format(limit)} are accepted, so scale it down.`);
  }
  const [classified, found] = await Promise.all([
    post(classifyAddress(), asked, signal),
    post(similarAddress(), asked, signal),
  ]);
  picture = asked;
  const { classes } = classified.results[0];
  const { matches } = found.results[0];
  showClasses(classes);
  showMatches(matches);
  say(`${name}: ${classes[0].name}, ${percent(classes[0].probability)}. ${counted(matches.length, "look-alike")}.`);
}

function askAgain() {
  if (!picture) return showExamples();
  return ask(async (signal) => {
    const found = await post(similarAddress(), picture, signal);
    showMatches(found.results[0].matches);
    say(`${counted(found.results[0].matches.length, "look-alike")} among ${$("label").value || "all labels"}.`);
  });
}

function askAgainWhatItIs() {
  if (!picture) return;
  return ask(async (signal) => {
    const { name } = picture;
    const { classes } = (await post(classifyAddress(), picture, signal)).results[0];
    showClasses(classes);
    say(`${name}: ${classes[0].name}, ${percent(classes[0].probability)}.`);
  });
}

// Drawing

function showPicture(blob, name) {
  const preview = $("preview");
  URL.revokeObjectURL(preview.src);
  document.body.classList.add("has-picture");
  document.body.classList.remove("is-unseen");
  preview.hidden = false;
  preview.onload = () => sharpen(preview);
  preview.onerror = () => {
    preview.hidden = true; // a kind that the service may read though this browser does not
    document.body.classList.add("is-unseen");
  };
  preview.src = URL.createObjectURL(blob);
  preview.alt = `Your picture, ${name}`;
  document.querySelector("#invitation strong").textContent = "Choose another";
  $("filename").textContent = name;
  $("filename").hidden = false;
}

function showClasses(classes) {
  const bars = $("bars");
  classes.forEach(({ name, probability }, place) => {
    const bar = bars.children[place] ?? bars.appendChild(emptyBar());
    bar.querySelector(".name").textContent = name;
    bar.querySelector(".name").title = name;
    bar.querySelector(".percent").textContent = percent(probability);
    bar.querySelector(".fill").style.width = `${100 * probability}%`;
  });
  while (bars.children.length > classes.length) bars.lastChild.remove();
  $("classes").hidden = false;
}

function emptyBar() {
  const bar = element("li");
  const track = element("span", "track");
  const fill = track.appendChild(element("span", "fill"));
  fill.style.width = "0";
  bar.append(element("span", "name"), element("span", "percent"), track);
  bar.getBoundingClientRect();
  return bar;
}

function showMatches(matches) {
  $("matches-title").textContent = "What it looks like";
  $("matches-note").textContent = "The nearest first, with their distance. Click one to search by it.";
  $("shuffle").hidden = true;
  // The card that was clicked goes away: keyboards and screen readers go on from the heading.
  if ($("grid").contains(document.activeElement)) $("matches-title").focus({ preventScroll: true });
  showCards(matches, "Nothing is indexed yet.");
}

function showCards(items, ifNone) {
  cards = items;
  $("grid").replaceChildren(...items.map(card));
  highlightMatches();
  if (!items.length) $("grid").append(element("li", "empty", ifNone));
}

function highlightMatches() {
  map?.highlight(picture ? cards.map(({ id }) => id) : [], $("label").value);
}

async function toggleMap() {
  const isOpen = $("map").hidden;
  $("map").hidden = !isOpen;
  $("map-toggle").setAttribute("aria-expanded", isOpen);
  if (map || !isOpen) return;
  const content = await getJson("map");
  map ??= new ItemMap($("map"), (id) => askAboutId(id).catch(showProblem));
  map.fill(content);
  highlightMatches();
}

function card(item) {
  const name = item.label ?? item.path.split("/").pop();
  const button = element("button", "card");
  button.type = "button";
  button.title = item.path;
  const frame = element("span", "frame");
  frame.append(thumbnail(item.thumbnail));
  const caption = element("span", "caption");
  caption.append(element("span", "label", name));
  button.setAttribute("aria-label", `${name}; find what looks like it`);
  if (item.distance !== undefined) {
    const distance = distanceText(item.distance);
    caption.append(element("span", "distance", distance));
    button.setAttribute("aria-label", `${name}, distance ${distance}; find what looks like it`);
  }
  button.append(frame, caption);
  button.onclick = () => askAboutItem(item);
  const listed = element("li");
  listed.append(button);
  return listed;
}

function showProblem(error) {
  if (error.name === "AbortError") return;
  if (!(error instanceof Problem)) console.error(error);
  $("problem-title").textContent = error.title ?? "It did not work";
  $("problem-detail").textContent = error instanceof Problem ? error.message : "The page met something unexpected; load it again.";
  $("problem").hidden = false;
  if (!picture) $("classes").hidden = true;
}

function setBusy(isBusy) {
  document.body.classList.toggle("is-busy", isBusy);
  $("matches").setAttribute("aria-busy", isBusy);
}

function say(sentence) {
  $("status").textContent = sentence;
}

function percent(probability) {
  const digits = probability > 0.9995 || probability < 0.0005 ? 0 : 1;
  return `${(100 * probability).toFixed(digits)}%`;
}

function distanceText(distance) {
  return distance.toFixed(distance < 2 ? 3 : distance < 100 ? 2 : 0);
}

function counted(number, one, several = `${one}s`) {
  return `${whole.format(number)} ${number === 1 ? one : several}`;
}

// Before the first picture: what is indexed

async function introduce() {
  info = await getJson("info");
  const { index, model } = info;
  const labels = Object.keys(index.labels).sort();
  $("about").textContent = `Model ${model.id.slice(0, 8)}, ${counted(model.class_names.length, "class", "classes")}, ${model.image_size} px`;
  for (const label of labels) {
    const option = element("option", "", `${label} (${whole.format(index.labels[label])})`);
    option.value = label;
    $("label").append(option);
  }
  $("label-filter").hidden = labels.length < 2;
  $("by-choice").hidden = !index.probe;
  if (!index.probe) $("by").value = "classes"; // which a browser may have kept from another visit
  for (const metric of index.metrics) {
    const option = element("option", "", METRIC_NAMES[metric] ?? metric);
    option.value = metric;
    $("metric").append(option);
  }
  $("map-toggle").hidden = !index.map;
  $("metric-choice").hidden = index.metrics.length < 2;
  await showExamples();
}

async function showExamples() {
  const label = $("label").value;
  const { num_items, num_labels, labels } = info.index;
  const total = label ? labels[label] : num_items;
  const offsets = new Set();
  while (offsets.size < Math.min(NUM_MATCHES, total)) offsets.add(Math.floor(Math.random() * total));
  const pages = await Promise.all(
    [...offsets].map((offset) => getJson(`items?${new URLSearchParams({ limit: 1, offset, ...(label && { label }) })}`)),
  );
  if (picture) return;
  const ofLabels = num_labels && !label ? `, ${counted(num_labels, "label")}` : "";
  $("matches-title").textContent = "In the index";
  $("matches-note").textContent = `${counted(total, "image")}${ofLabels}. Click one to search by it.`;
  showCards(pages.flatMap((page) => page.items), "Nothing is indexed yet.");
  $("shuffle").hidden = total <= NUM_MATCHES;
}

// Listening

function askAboutFiles(files) {
  if (files?.length) askAboutFile(files[0]);
}

$("file").addEventListener("change", () => {
  askAboutFiles([...$("file").files]);
  $("file").value = ""; // so that the same file may be chosen again
});
document.addEventListener("paste", (event) => askAboutFiles(event.clipboardData.files));
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("is-dragging");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("is-dragging");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("is-dragging");
  askAboutFiles(event.dataTransfer.files);
});
$("label").addEventListener("change", askAgain);
$("metric").addEventListener("change", () => picture && askAgain());
$("by").addEventListener("change", askAgainWhatItIs);
$("map-toggle").addEventListener("click", () => toggleMap().catch(showProblem));
$("shuffle").addEventListener("click", () => showExamples().catch(showProblem));

introduce().catch(showProblem);
