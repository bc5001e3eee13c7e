// Requests to the service's API.

const LARGE_BYTES = 1_000_000;
const JPEG_QUALITY = 0.95;

/** An error for the user. It has a title, and a sentence that says what to do. */
export class Problem extends Error {
  constructor(title, detail) {
    super(detail);
    this.title = title;
  }
}

export async function call(address, options = {}) {
  let response;
  try {
    response = await fetch(address, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    const detail = "The service cannot be reached. Check that it is running, then try again.";
    throw new Problem("No answer", detail);
  }
  if (response.ok) return response;
  const problem = await response.json().catch(() => ({}));
  const detail = problem.detail ?? `The service answered with status ${response.status}.`;
  throw new Problem(problem.title ?? "Something went wrong", detail);
}

export async function getJson(address, options) {
  return (await call(address, options)).json();
}

export function post(address, { blob, name }, signal) {
  const body = new FormData();
  body.append("image", blob, name);
  return getJson(address, { method: "POST", body, signal });
}

/**
 * Random items: `numRuns` runs of `runLength` neighbouring items, with one request per run.
 *
 * `total` is the number of items. If a label is given, it is the number of items with this label.
 */
export async function randomItems(total, label, numRuns, runLength) {
  async function list(offset, limit) {
    const query = new URLSearchParams({ limit, offset, ...(label && { label }) });
    return (await getJson(`items?${query}`)).items;
  }
  if (total <= numRuns * runLength) return list(0, numRuns * runLength);
  const start = randomBelow((total % runLength) + 1);
  const runs = new Set();
  while (runs.size < numRuns) runs.add(randomBelow(Math.floor(total / runLength)));
  const lists = [...runs].map((run) => list(start + run * runLength, runLength));
  return (await Promise.all(lists)).flat();
}

/**
 * The file to send for a picture. A large file is scaled down to `sidePx` pixels on its short side.
 *
 * The result is an upright JPEG with a white background, because the service decodes images in the
 * same way. A file that the browser cannot read is not changed, because the service can read more
 * kinds of image.
 */
export async function scaledDown(file, sidePx) {
  if (file.size <= LARGE_BYTES) return file;
  try {
    // The service ignores colour profiles too.
    const bitmap = await createImageBitmap(file, { colorSpaceConversion: "none" });
    const scale = sidePx / Math.min(bitmap.width, bitmap.height);
    if (scale >= 1) return file;
    const [width, height] = [bitmap.width, bitmap.height].map((side) => Math.round(side * scale));
    const brush = new OffscreenCanvas(width, height).getContext("2d");
    brush.fillStyle = "#fff";
    brush.fillRect(0, 0, width, height);
    brush.imageSmoothingQuality = "high";
    brush.drawImage(bitmap, 0, 0, width, height);
    return await brush.canvas.convertToBlob({ type: "image/jpeg", quality: JPEG_QUALITY });
  } catch {
    return file;
  }
}

function randomBelow(limit) {
  return Math.floor(Math.random() * limit);
}
