"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const element = (id) => document.getElementById(id);
const fields = ["score", "diagnosis", "call"];
const isPair = (image) => "right" in image;
// The answers that an image must have, and the words that a call of it may be.
const neededOf = (image) => (isPair(image) ? ["call"] : fields.filter((field) => field === "score" || (field === "call" ? data.calls : data.classes.length)));
const callsOf = (image) => (isPair(image) ? ["left", "right"] : data.calls ? ["real", "generated"] : []);
const images = new Map(data.images.map((image) => [image.id, image]));
const what = data.images.every(isPair) ? "pairs" : data.images.some(isPair) ? "images and pairs" : "images";
let answers = {}, changes = [], current = 0;

const answer = (id) => answers[id] ?? {};
const isDone = (id) => neededOf(images.get(id)).every((field) => answer(id)[field]);
const doneCount = () => data.images.filter((image) => isDone(image.id)).length;
const showMessage = (text) => { element("message").textContent = text; };

// Accepts only what this page could have written itself.
function validate(content) {
  if (content === null || typeof content !== "object" || content.key !== data.key) throw new Error("it is of another page");
  const valid = {};
  for (const [id, given] of Object.entries(content.answers ?? {})) {
    if (!images.has(id) || given === null || typeof given !== "object") throw new Error("it names images that this page does not have");
    const accepted = {};
    for (const field of fields) {
      const value = given[field];
      if (value === undefined || value === "") continue;
      const fits = typeof value === "string" && (value.length <= 200 || data.classes.includes(value))
        && (field !== "score" || /^[1-5]$/.test(value)) && (field === "call" ? callsOf(images.get(id)).includes(value) : !isPair(images.get(id)));
      if (!fits) throw new Error("it holds an answer that this page cannot give");
      accepted[field] = value;
    }
    valid[id] = accepted;
  }
  return { answers: valid, rater: typeof content.rater === "string" ? content.rater.slice(0, 80) : "" };
}

const progress = () => ({ key: data.key, rater: element("rater").value.trim(), answers });

// IndexedDB reports when it has stored something. localStorage does not: in one of about a hundred starts Chromium loses what the first page puts there.
const opened = new Promise((resolve, reject) => {
  const request = indexedDB.open("gankit-rating", 1);
  request.onupgradeneeded = () => request.result.createObjectStore("progress");
  request.onsuccess = () => resolve(request.result);
  request.onerror = () => reject(request.error);
});

const STORES_NOTHING = "This browser stores nothing: export your progress before you close the page.";

async function inStore(mode, ask) {
  const transaction = (await opened).transaction("progress", mode);
  const request = ask(transaction.objectStore("progress"));
  transaction.commit?.();  // at once: the page may be reloaded before its callback runs
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve(request.result);
    transaction.onabort = () => reject(transaction.error);
  });
}

async function store() {
  try {
    await inStore("readwrite", (store) => store.put(progress(), data.key));
  } catch {
    showMessage(STORES_NOTHING);
  }
}

function show() {
  const { id, src, right } = data.images[current], given = answer(id), count = doneCount();
  const place = `${right ? "pair" : "image"} ${current + 1} of ${data.images.length}`;
  element("image").src = src;
  element("image").alt = right ? `left image of ${place}` : place;
  if (element("right")) {
    element("right").hidden = !right;
    if (right) element("right").src = right; else element("right").removeAttribute("src");
    element("right").alt = `right image of ${place}`;
  }
  for (const group of document.querySelectorAll("[data-of]")) group.hidden = group.dataset.of !== (right ? "pair" : "single");
  element("place").textContent = `${place[0].toUpperCase()}${place.slice(1)}, ${count} rated`;
  element("progress").value = count;
  for (const button of document.querySelectorAll("button[data-field]")) {
    button.setAttribute("aria-pressed", String(given[button.dataset.field] === button.dataset.value));
  }
  if (element("other")) element("other").value = data.classes.includes(given.diagnosis) ? "" : given.diagnosis ?? "";
  element("back").disabled = current === 0;
  element("next").disabled = current === data.images.length - 1;
  element("undo").disabled = !changes.length;
  element("save").textContent = count === data.images.length ? "Save ratings" : `Save ratings (${count} of ${data.images.length})`;
}

function go(place) {
  current = Math.min(Math.max(place, 0), data.images.length - 1);
  showMessage("");
  show();
}

function goToUnrated() {
  const count = data.images.length;
  for (let step = 1; step < count; step += 1) {
    if (!isDone(data.images[(current + step) % count].id)) { go((current + step) % count); return; }
  }
  show();
  showMessage(`All ${count} ${what} are rated: save the ratings.`);
}

function setAnswer(field, value, moves = true) {
  const { id } = data.images[current], before = isDone(id);
  if ((answer(id)[field] ?? "") === value) return;
  changes.push({ place: current, before: { ...answer(id) } });
  answers[id] = { ...answer(id), [field]: value };
  showMessage("");
  store();
  // Without classes the diagnosis may stay empty, so that only the rater knows when an image is done.
  if (moves && !before && isDone(id) && (data.classes.length || isPair(images.get(id)))) goToUnrated(); else show();
}

function setOther(moves) {
  const text = element("other").value.trim(), given = answer(data.images[current].id).diagnosis;
  if (text || !data.classes.includes(given)) setAnswer("diagnosis", text, moves);
}

function undo() {
  const last = changes.pop();
  if (!last) return;
  answers[data.images[last.place].id] = last.before;
  store();
  go(last.place);
  showMessage("Undone.");
}

function download(name, type, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

const cell = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
const fileName = (kind, end) => {
  const rater = element("rater").value.trim().replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "");
  return `${kind}-${data.key.slice(0, 8)}${rater ? `-${rater}` : ""}.${end}`;
};

function save() {
  const rater = element("rater").value.trim(), rows = [["image", ...fields, "rater", "key"]];
  for (const { id } of data.images) {
    if (fields.some((field) => answer(id)[field])) rows.push([id, ...fields.map((field) => answer(id)[field] ?? ""), rater, data.key]);
  }
  download(fileName("ratings", "csv"), "text/csv", rows.map((row) => `${row.map(cell).join(",")}\r\n`).join(""));
  const left = data.images.length - doneCount();
  showMessage(left ? `Saved, but ${left} ${what} are not fully rated yet.` : "Saved.");
}

for (const button of document.querySelectorAll("button[data-field]")) {
  button.addEventListener("click", () => setAnswer(button.dataset.field, button.dataset.value));
}
for (const [id, side] of [["image", "left"], ["right", "right"]]) {
  element(id)?.addEventListener("click", () => { if (isPair(data.images[current])) setAnswer("call", side); });
}
element("back").addEventListener("click", () => go(current - 1));
element("next").addEventListener("click", () => go(current + 1));
element("undo").addEventListener("click", undo);
element("save").addEventListener("click", save);
element("rater").addEventListener("input", store);
element("other")?.addEventListener("change", () => setOther(false));  // the field may have lost focus by a click on Next
element("export").addEventListener("click", () => download(fileName("progress", "json"), "application/json", JSON.stringify(progress(), null, 1)));
element("import").addEventListener("change", async (event) => {
  const [file] = event.target.files;
  if (!file) return;
  try {
    const content = validate(JSON.parse(await file.text()));
    ({ answers } = content);
    changes = [];
    element("rater").value = content.rater;
    store();
    start();
    showMessage(`Imported: ${doneCount()} of ${data.images.length} ${what} are rated.`);
  } catch (error) {
    showMessage(`The file cannot be imported: ${error instanceof SyntaxError ? "it is not a progress file" : error.message}.`);
  }
  event.target.value = "";
});

element("start-over").addEventListener("click", () => {
  if (!confirm("Forget all answers to this page? Export them first if they are needed.")) return;
  answers = {};
  changes = [];
  element("rater").value = "";
  store();
  start();
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  if (event.target instanceof HTMLInputElement && event.target.type === "text") {
    if (event.key !== "Enter" && event.key !== "Escape") return;
    if (event.target.id === "other") { if (event.key === "Enter") setOther(true); else show(); }
    event.target.blur();
    event.preventDefault();
    return;
  }
  const key = event.key.toLowerCase();
  const button = [...document.querySelectorAll("[role=group]:not([hidden]) button[data-field]")]
    .find(({ dataset }) => key.length === 1 && key === (dataset.key ?? dataset.value));
  if (event.key === "ArrowLeft") go(current - 1);
  else if (event.key === "ArrowRight") go(current + 1);
  else if (key === "u") undo();
  else if (key === "o") element("other")?.focus();
  else if (button) setAnswer(button.dataset.field, button.dataset.value);
  else return;
  event.preventDefault();
});

function start() {
  const open = data.images.findIndex((image) => !isDone(image.id));
  go(open < 0 ? 0 : open);
}

// Answers given before the stored ones have been read take precedence.
async function resume() {
  let content;
  try {
    content = await inStore("readonly", (store) => store.get(data.key));
  } catch {
    showMessage(STORES_NOTHING);
    return;
  }
  if (content === undefined) return;
  try {
    content = validate(content);
  } catch (error) {
    showMessage(`The answers that this browser stored cannot be read (${error.message}).`);
    return;
  }
  for (const [id, given] of Object.entries(content.answers)) answers[id] = { ...given, ...answer(id) };
  changes = [];
  element("rater").value ||= content.rater;
  store();
  start();
  showMessage(`Welcome back: ${doneCount()} of ${data.images.length} ${what} are rated.`);
}

element("key").textContent = data.key;
start();
resume();
