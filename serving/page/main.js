import * as api from "./api.js";
import { AttentionView } from "./attention.js";
import { bars, element, note, percent } from "./elements.js";
import * as tasks from "./tasks.js";

const byId = (id) => document.getElementById(id);
const model = byId("model");
const task = byId("task"); // which of several models of an export; "": the one without a name

// What a section needs of the model: signature and outputs.
const NEEDS = {
  "fill-mask": ["fill_mask", ["tokens", "scores", "mask_count"]],
  "next-sentence": ["next_sentence", ["is_next"]],
  nearest: ["serving_default", ["embedding"]],
  tokenize: ["tokenize", ["ids", "tokens", "length"]],
  attention: ["attention", ["attention", "tokens", "mask"]],
  classify: ["classify", ["label", "labels", "probabilities"]],
  "classify-labels": ["classify_labels", ["labels", "names", "probabilities"]],
  score: ["score", ["score"]],
  tag: ["tag", ["tags", "scores", "word_count", "char_starts", "char_ends", "entity_count"]],
  answer: ["answer", ["answer", "answers", "scores", "no_answer", "char_starts", "char_ends"]],
};

let known = {}; // the chosen model's signatures

const has = (signature, outputs) => outputs.every((name) => known[signature]?.outputs[name]);
const isTask = (id) => "task" in byId(id).dataset;
/** What the chosen model calls a section's signature: what answers a task may bear a name. */
const called = (id) => (isTask(id) && task.value ? `${task.value}_${NEEDS[id][0]}` : NEEDS[id][0]);

/** The names that the answers to tasks bear. */
function names() {
  const ends = Object.keys(NEEDS).filter(isTask).flatMap((id) => [NEEDS[id][0], `${NEEDS[id][0]}_pair`]);
  const named = (key, end) => (key === end ? "" : key.slice(0, -end.length - 1));
  const found = Object.keys(known).map((key) => [key, ends.find((end) => key === end) ?? ends.find((end) => key.endsWith(`_${end}`))]);
  return new Set(found.filter(([, end]) => end).map(([key, end]) => named(key, end)));
}

async function fillMask(answer) {
  const outputs = await api.predict(model.value, "fill_mask", { text: [byId("fill-text").value] });
  const count = outputs.mask_count[0];
  answer.replaceChildren();
  if (!count) answer.append(note("There is no [MASK] in the text."));
  for (let mask = 0; mask < count; mask++) {
    if (count > 1) answer.append(element("strong", `[MASK] ${mask + 1}`));
    const scores = outputs.scores[0][mask];
    answer.append(bars(outputs.tokens[0][mask].map((name, i) => ({ name, share: scores[i], value: percent(scores[i]) }))));
  }
  if (outputs.truncated?.[0]) answer.append(note("The text was too long and was cut."));
}

async function nextSentence(answer) {
  const inputs = { first: [byId("first").value], second: [byId("second").value] };
  const share = (await api.predict(model.value, "next_sentence", inputs)).is_next[0];
  const rows = [["follows", share], ["does not", 1 - share]];
  answer.replaceChildren(bars(rows.map(([name, s]) => ({ name, share: s, value: percent(s) }))));
}

async function nearest(answer) {
  const candidates = byId("candidates").value.split("\n").map((line) => line.trim()).filter(Boolean);
  if (!candidates.length) throw new api.Refused("There is no line to compare with.");
  const texts = [byId("query").value, ...candidates];
  const { embedding } = await api.predict(model.value, "serving_default", { text: texts });
  const [query, ...others] = embedding.map(unit);
  const ranked = others
    .map((vector, i) => ({ name: candidates[i], cosine: vector.reduce((sum, x, j) => sum + x * query[j], 0) }))
    .sort((a, b) => b.cosine - a.cosine);
  answer.replaceChildren(bars(ranked.map(({ name, cosine }) => ({ name, share: cosine, value: cosine.toFixed(3) }))));
}

function unit(vector) {
  const length = Math.hypot(...vector) || 1;
  return vector.map((x) => x / length);
}

const view = new AttentionView();

async function attention() {
  const inputs = { text: [byId("attention-text").value], second: [byId("attention-second").value] };
  const outputs = await api.predict(model.value, "attention", inputs);
  const length = outputs.mask[0].reduce((sum, real) => sum + real, 0);
  view.show(outputs.attention[0], outputs.tokens[0].slice(0, length));
}

/** Of a text, or of a pair where the model judges such. */
function judging(id, shown) {
  return async (answer) => {
    const signature = called(id);
    const [first, second] = ["text", "second"].map((name) => byId(`${id}-${name}`).value);
    const pair = known[`${signature}_pair`] && (second.trim() || !known[signature]);
    const inputs = pair ? { first: [first], second: [second] } : { text: [first] };
    answer.replaceChildren(...shown(await api.predict(model.value, pair ? `${signature}_pair` : signature, inputs)));
  };
}

async function tag(answer) {
  const text = byId("tag-text").value;
  answer.replaceChildren(...tasks.tagged(text, await api.predict(model.value, called("tag"), { text: [text] })));
}

async function question(answer) {
  const context = byId("context").value;
  const inputs = { question: [byId("question").value], context: [context] };
  answer.replaceChildren(...tasks.answered(context, await api.predict(model.value, called("answer"), inputs)));
}

async function tokenize(answer) {
  answer.replaceChildren(...tasks.pieces(await api.predict(model.value, "tokenize", { text: [byId("tokenize-text").value] })));
}

const ACTIONS = {
  "fill-mask": fillMask,
  "next-sentence": nextSentence,
  nearest,
  tokenize,
  attention,
  classify: judging("classify", tasks.oneLabel),
  "classify-labels": judging("classify-labels", tasks.anyLabels),
  score: judging("score", tasks.number),
  tag,
  answer: question,
};

for (const [id, action] of Object.entries(ACTIONS)) {
  const section = byId(id);
  const form = section.querySelector("form");
  const message = section.querySelector(".message") ?? section.querySelector(".answer");
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = form.querySelector("button");
    button.disabled = true;
    try {
      if (message.matches(".message")) message.replaceChildren();
      await action(section.querySelector(".answer"));
    } catch (error) {
      if (!(error instanceof api.Refused)) console.error(error);
      message.replaceChildren(element("p", error.message, "error"));
    } finally {
      button.disabled = false;
    }
  });
  form.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
}

for (const button of document.querySelectorAll("[data-insert]")) {
  button.addEventListener("click", () => {
    const text = byId("fill-text");
    text.setRangeText(button.dataset.insert, text.selectionStart, text.selectionEnd, "end");
    text.focus();
  });
}

async function choose() {
  try {
    const version = await api.version(model.value);
    if (version === null) throw new api.Refused("no version is loaded yet");
    known = await api.signatures(model.value);
    task.replaceChildren(...[...names()].sort().map((name) => new Option(name || "(without a name)", name)));
    task.closest("label").hidden = task.options.length < 2;
    show(version);
    task.onchange = () => show(version);
    const path = `${location.origin}/v1/models/${encodeURIComponent(model.value)}:predict`;
    byId("example").textContent = `curl -d '{"instances": ["a text"]}' ${path}`;
  } catch (error) {
    byId("status").textContent = `${model.value || "The server"}: ${error.message}`;
  }
}

/** The sections that the chosen model answers. */
function show(version) {
  const missing = [];
  for (const [id, [, outputs]] of Object.entries(NEEDS)) {
    const section = byId(id);
    const signature = called(id);
    const second = section.querySelector(".second");
    const pairs = second !== null && has(`${signature}_pair`, outputs);
    const there = pairs || has(signature, outputs);
    if (second) {
      second.hidden = !pairs;
      second.querySelector("textarea").required = !has(signature, outputs);
    }
    section.hidden = !there;
    section.querySelector(".answer").toggleAttribute("hidden", id === "attention");
    if (id !== "attention") section.querySelector(".answer").replaceChildren();
    // What a model was not fine-tuned for, nobody misses.
    if (!there && !isTask(id)) missing.push(section.querySelector("h2").textContent.toLowerCase());
  }
  byId("status").textContent = `Version ${version}` + (missing.length ? `. This model cannot: ${missing.join(", ")}.` : "");
}

async function start() {
  try {
    for (const name of await api.models()) model.append(new Option(name, name));
    model.closest("label").hidden = model.options.length < 2;
  } catch (error) {
    byId("status").textContent = error.message;
    return;
  }
  model.addEventListener("change", choose);
  await choose();
  document.body.dataset.ready = "yes"; // for tests
}

start();
