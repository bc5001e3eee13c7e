// The main script. It sends one picture at a time to /classify and /similar, and shows the answers.
// File names, paths and labels come from users, so they are inserted as text only, never as HTML.

import { Problem, call, getJson, post, randomItems, scaledDown } from "./api.js";
import { appendBar, counted, distanceText, element, naturally, percent } from "./elements.js";
import { sharpen, thumbnail, whole } from "./elements.js";
import { ItemMap } from "./map.js";

const NUM_CLASSES = 5;
const NUM_MATCHES = 12;
const EXAMPLES = { numRuns: 3, runLength: 4 }; // one request per run of neighbouring items
const SIDES_SENT = 4; // short side of a scaled picture, as a multiple of the network's image size
const METRIC_NAMES = { euclidean: "Euclidean", cosine: "Cosine", hamming: "Hamming (codes)" };

const $ = (id) => document.getElementById(id);

let info = null; // the answer of /info; the page also works without it
let picture = null; // the last picture that has an answer, as {blob, name}
let map = null; // the ItemMap, after it has been opened
let cards = []; // the items whose cards are shown
let asking = new AbortController(); // stops the current query when the next one starts

// Queries

function classifyAddress() {
  return `classify?${new URLSearchParams({ k: NUM_CLASSES, by: $("by").value })}`;
}

function similarAddress() {
  const k = Math.min(NUM_MATCHES, info?.limits.max_k ?? NUM_MATCHES);
  const query = new URLSearchParams({ k });
  if ($("label").value) query.set("label", $("label").value);
  if ($("metric").value) query.set("metric", $("metric").value);
  return `similar?${query}`;
}

/** Run one query. A later query stops it without an error message. */
async function ask(query) {
  asking.abort();
  const current = (asking = new AbortController());
  setBusy(true);
  $("problem").hidden = true;
  try {
    await query(current.signal);
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

/** Use the thumbnail of an indexed image as the next picture. */
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

/** Classify a picture and search by it. */
async function askBoth({ blob: file, name }, signal) {
  picture = null;
  showPicture(file, name);
  await introduced; // it sets which names and which distance are asked for
  const blob = await scaledDown(file, SIDES_SENT * (info?.model.image_size ?? 224));
  const asked = { blob, name };
  const limit = info?.limits.max_image_bytes ?? Infinity;
  if (blob.size > limit) {
    const [numBytes, maxBytes] = [blob.size, limit].map(whole.format);
    const limits = `${numBytes} bytes; at most ${maxBytes} are accepted`;
    throw new Problem("The file is too large", `${name} has ${limits}, so scale it down.`);
  }
  const [classified, searched] = await Promise.all([
    post(classifyAddress(), asked, signal),
    post(similarAddress(), asked, signal),
  ]);
  picture = asked;
  const { classes } = classified.results[0];
  const { matches } = searched.results[0];
  showClasses(classes);
  showMatches(matches);
  say(`${described(name, classes)} ${counted(matches.length, "look-alike")}.`);
}

function searchAgain() {
  if (!picture) return showExamples();
  return ask(async (signal) => {
    const { matches } = (await post(similarAddress(), picture, signal)).results[0];
    showMatches(matches);
    say(`${counted(matches.length, "look-alike")} among ${$("label").value || "all labels"}.`);
  });
}

function classifyAgain() {
  if (!picture) return;
  return ask(async (signal) => {
    const { name } = picture;
    const { classes } = (await post(classifyAddress(), picture, signal)).results[0];
    showClasses(classes);
    say(described(name, classes));
  });
}

function described(name, [likeliest]) {
  return `${name}: ${likeliest.name}, ${percent(likeliest.probability)}.`;
}

// Showing answers

function showPicture(blob, name) {
  const preview = $("preview");
  URL.revokeObjectURL(preview.src);
  document.body.classList.add("has-picture");
  document.body.classList.remove("is-unseen");
  preview.hidden = false;
  preview.onload = () => sharpen(preview);
  preview.onerror = () => {
    preview.hidden = true; // this browser cannot show the file, but the service may read it
    document.body.classList.add("is-unseen");
  };
  preview.src = URL.createObjectURL(blob);
  preview.alt = `Your picture, ${name}`;
  document.querySelector("#invitation strong").textContent = "Choose another picture";
  $("filename").textContent = name;
  $("filename").hidden = false;
}

function showClasses(classes) {
  const bars = $("bars");
  classes.forEach(({ name, probability }, position) => {
    const bar = bars.children[position] ?? appendBar(bars);
    bar.querySelector(".name").textContent = name;
    bar.querySelector(".name").title = name;
    bar.querySelector(".percent").textContent = percent(probability);
    bar.querySelector(".fill").style.width = `${100 * probability}%`;
  });
  while (bars.children.length > classes.length) bars.lastChild.remove();
  $("classes").hidden = false;
}

function showMatches(matches) {
  $("matches-title").textContent = "Most similar images";
  $("matches-note").textContent =
    "Nearest image first, with its distance. Click an image to find similar images.";
  $("shuffle").hidden = true;
  // The clicked card disappears, so the focus moves to the heading.
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
  button.setAttribute("aria-label", `${name}; find similar images`);
  if (item.distance !== undefined) {
    const distance = distanceText(item.distance);
    caption.append(element("span", "distance", distance));
    button.setAttribute("aria-label", `${name}, distance ${distance}; find similar images`);
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
  $("problem-title").textContent = error.title ?? "Something went wrong";
  const unexpected = "An unexpected error has occurred. Load the page again.";
  $("problem-detail").textContent = error instanceof Problem ? error.message : unexpected;
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

// Before the first picture: examples of the indexed images

async function introduce() {
  info = await getJson("info");
  const { index, model } = info;
  const labels = Object.keys(index.labels).sort(naturally);
  const numClasses = counted(model.class_names.length, "class", "classes");
  $("about").textContent = `Model ${model.id.slice(0, 8)}, ${numClasses}, ${model.image_size} px`;
  for (const label of labels) {
    const option = element("option", "", `${label} (${whole.format(index.labels[label])})`);
    option.value = label;
    $("label").append(option);
  }
  $("label-filter").hidden = labels.length < 2;
  $("by-choice").hidden = !index.probe;
  // A network that was not trained on these labels, such as ImageNet's, does not know their names.
  const knowsLabels = labels.every((label) => model.class_names.includes(label));
  // The value is always set, because a browser may keep the value of an earlier visit.
  $("by").value = index.probe && !knowsLabels ? "items" : "classes";
  for (const metric of index.metrics) {
    const option = element("option", "", METRIC_NAMES[metric] ?? metric);
    option.value = metric;
    $("metric").append(option);
  }
  $("metric").value = index.better_metric ?? index.metrics[0];
  $("map-toggle").hidden = !index.map;
  $("metric-choice").hidden = index.metrics.length < 2;
  await showExamples();
}

async function showExamples() {
  const label = $("label").value;
  const { num_items, num_labels, labels } = info.index;
  const total = label ? labels[label] : num_items;
  const items = await randomItems(total, label, EXAMPLES.numRuns, EXAMPLES.runLength);
  if (picture) return;
  const ofLabels = num_labels && !label ? `, ${counted(num_labels, "label")}` : "";
  $("matches-title").textContent = "In the index";
  const contents = `${counted(total, "image")}${ofLabels}`;
  $("matches-note").textContent = `${contents}. Click an image to find similar images.`;
  showCards(items, "Nothing is indexed yet.");
  $("shuffle").hidden = total <= EXAMPLES.numRuns * EXAMPLES.runLength;
}

// Events

function askAboutFiles(files) {
  if (files?.length) askAboutFile(files[0]);
}

$("file").addEventListener("change", () => {
  askAboutFiles([...$("file").files]);
  $("file").value = ""; // so that the same file can be chosen again
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
$("label").addEventListener("change", searchAgain);
$("metric").addEventListener("change", () => picture && searchAgain());
$("by").addEventListener("change", classifyAgain);
$("map-toggle").addEventListener("click", () => toggleMap().catch(showProblem));
$("shuffle").addEventListener("click", () => showExamples().catch(showProblem));

const introduced = introduce().catch(showProblem);
