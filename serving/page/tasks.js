// What fine-tuned models answer, each of them the answer's elements for people.

import { element, bars, folded, marked, mostBars, note, percent } from "./elements.js";

const TRUNCATED = "The text was too long and was cut.";

function ending(outputs, text = TRUNCATED) {
  return outputs.truncated?.[0] ? [note(text)] : [];
}

/** One label: {label, labels, probabilities}. */
export function oneLabel(outputs) {
  const { label: [label], labels: [labels], probabilities: [shares] } = outputs;
  const rows = labels.map((name, i) => ({ name, share: shares[i], value: percent(shares[i]), said: name === label }));
  return [...mostBars(rows.sort((a, b) => b.share - a.share)), ...ending(outputs)];
}

/** Any labels: {labels, names, probabilities, thresholds}; those that are said come first. */
export function anyLabels(outputs) {
  const { labels: [labels], names: [names], probabilities: [shares] } = outputs;
  const rows = names.map((name, i) => {
    const said = labels.includes(name);
    return { name: said ? `✓ ${name}` : name, share: shares[i], value: percent(shares[i]), said, from: outputs.thresholds?.[0][i] };
  });
  rows.sort((a, b) => b.said - a.said || b.share - a.share);
  const count = rows.filter((row) => row.said).length;
  const told = count ? "" : "No label is likely enough. ";
  const lines = outputs.thresholds ? "A line marks from where on a label is said." : "";
  return [...mostBars(rows, Math.max(10, count)), note(told + lines), ...ending(outputs)];
}

/** A number: {score}. */
export function number(outputs) {
  return [element("p", outputs.score[0].toPrecision(4), "number"), ...ending(outputs)];
}

/** Tags of words and, where they mark such, entities, coloured in the text. */
export function tagged(text, outputs) {
  const of = (name, count) => outputs[name][0].slice(0, outputs[count][0]);
  const scores = of("scores", "word_count");
  const tags = of("tags", "word_count");
  const starts = of("char_starts", "word_count");
  const ends = of("char_ends", "word_count");
  if (!tags.length) return [note("There is no word in the text.")];
  const marksEntities = tags.every((tag) => tag === "O" || /^[BIELSU]-/.test(tag));
  const words = tags.map((tag, i) => ({
    start: starts[i],
    end: ends[i],
    label: tag,
    kind: tag.replace(/^[BIELSU]-/, ""),
    title: `${tag} ${percent(scores[i])}`,
  }));
  const each = marked(text, words.filter(({ label }) => label !== "O"), "stacked");
  if (!marksEntities) return [each, legend(tags)];
  const types = of("entity_types", "entity_count");
  const names = of("entities", "entity_count");
  const sure = of("entity_scores", "entity_count");
  const begins = of("entity_char_starts", "entity_count");
  const stops = of("entity_char_ends", "entity_count");
  if (!types.length) return [marked(text, []), note("It names nothing that this model tags.")];
  const entities = types.map((type, i) => ({ start: begins[i], end: stops[i], label: type, kind: type }));
  const rows = types.map((type, i) => ({ name: `${names[i]} (${type})`, share: sure[i], value: percent(sure[i]) }));
  return [marked(text, entities), ...mostBars(rows), folded("Tags of the words", each)];
}

/** How many words have each tag, the commonest first. */
function legend(tags) {
  const counts = new Map();
  for (const tag of tags) counts.set(tag, (counts.get(tag) ?? 0) + 1);
  const sorted = [...counts].sort((a, b) => b[1] - a[1]);
  return note(`${tags.length} words: ${sorted.map(([tag, count]) => `${tag} ${count}`).join(", ")}`);
}

/** The best answers: the one that is chosen is marked in its context. */
export function answered(context, outputs) {
  const { answer: [answer], answers: [answers], scores: [scores], no_answer: [never] } = outputs;
  const spans = answers
    .map((text, i) => ({ text, share: scores[i], start: outputs.char_starts[0][i], end: outputs.char_ends[0][i] }))
    .filter(({ start, end }) => end > start);
  const place = element("div", "", "context");
  const show = (chosen) => {
    place.replaceChildren(marked(context, chosen === null ? [] : [spans[chosen]]));
    list.querySelectorAll("button").forEach((button, i) => button.setAttribute("aria-pressed", i === chosen));
  };
  const rows = spans.map(({ text, share }, i) => (
    { name: text, share, value: percent(share), said: answer !== "" && i === 0, choose: () => show(i) }
  ));
  // What the spans leave is no answer's, of a model that may say so.
  const none = 1 - scores.reduce((sum, share) => sum + share, 0);
  if (none > 1e-4) rows.push({ name: "(no answer)", share: none, value: percent(none), said: answer === "" });
  const list = bars(rows);
  show(answer === "" ? null : 0);
  const than = spans.length ? `${Math.abs(never).toFixed(2)} nats ${never > 0 ? "above" : "below"} the best span` : "there is no span";
  return [
    element("p", answer || "There is no answer in the text.", answer ? "number" : "note"),
    place,
    list,
    note(`The score of no answer: ${than}.`),
    ...ending(outputs, "The question was too long and was cut."),
  ];
}

/** The pieces of a text with their ids: {ids, tokens, length}. */
export function pieces(outputs) {
  const { ids: [ids], tokens: [tokens], length: [length] } = outputs;
  const list = element("ol", "", "pieces");
  for (let i = 0; i < length; i++) {
    const name = { "[UNK]": "unknown", "[CLS]": "special", "[SEP]": "special" }[tokens[i]];
    const item = element("li", "", name ?? (/^##./.test(tokens[i]) ? "goes-on" : ""));
    if (name === "unknown") item.title = "no pieces of the vocabulary spell this word";
    item.append(element("span", tokens[i]), element("small", ids[i]));
    list.append(item);
  }
  const shown = tokens.slice(1, length - 1);
  const unknown = shown.filter((token) => token === "[UNK]").length;
  const told = `${shown.length} ${shown.length === 1 ? "piece" : "pieces"} between [CLS] and [SEP]`;
  return [list, note(`${told}, ${unknown ? `${unknown} of them` : "none of them"} [UNK].`), ...ending(outputs)];
}
