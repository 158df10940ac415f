// Attention of one text: lines between tokens for one head, and a small picture of every head.

import { element } from "./elements.js";

const ROW = 22; // height of a token in the drawing
const CHARACTER = 8.5; // width of one
const WIDEST = 540;
const NARROWEST = 300;
const FAINTEST = 0.02; // weights below are not drawn
const SPECIAL = new Set(["[CLS]", "[SEP]", "[PAD]"]);

const byId = (id) => document.getElementById(id);

function svg(tag, attributes, text = "") {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.textContent = text;
  return made;
}

export class AttentionView {
  #weights = []; // [layers][heads][from][to]
  #tokens = [];
  #answer = byId("attention").querySelector(".answer");

  constructor() {
    for (const id of ["layer", "head", "hide-specials"]) byId(id).addEventListener("change", () => this.#draw());
    let width = 0; // drawing changes the height, which must not draw again
    new ResizeObserver(([{ contentRect }]) => {
      if (contentRect.width !== width) this.#draw();
      width = contentRect.width;
    }).observe(byId("lines").parentElement);
    // Canvas pixels do not follow the style sheet.
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#drawHeads());
  }

  show(weights, tokens) {
    this.#weights = weights;
    this.#tokens = tokens;
    options(byId("layer"), weights.length);
    options(byId("head"), weights[0].length);
    this.#answer.hidden = false;
    this.#drawHeads();
    this.#draw();
  }

  #draw() {
    if (!this.#weights.length) return;
    const layer = byId("layer").selectedIndex;
    const head = byId("head").selectedIndex;
    for (const button of byId("heads").querySelectorAll("button")) {
      button.setAttribute("aria-pressed", button.dataset.layer == layer && button.dataset.head == head);
    }
    this.#drawLines(this.#weights[layer][head]);
  }

  #drawLines(weights) {
    const left = byId("hide-specials").checked;
    const shown = this.#tokens.map((_, i) => i).filter((i) => !left || !SPECIAL.has(this.#tokens[i]));
    const drawing = byId("lines");
    // Where the lines begin and end; the tokens get the rest.
    const width = Math.min(Math.max(drawing.parentElement.clientWidth, NARROWEST), WIDEST);
    const [begin, end] = [0.3 * width, 0.7 * width];
    const characters = Math.floor((begin - 8) / CHARACTER);
    const short = (token) => (token.length > characters ? `${token.slice(0, characters - 1)}…` : token);
    drawing.setAttribute("viewBox", `0 0 ${width} ${ROW * shown.length + 4}`);
    drawing.replaceChildren();
    const lines = svg("g", {});
    const texts = [];
    const middle = (row) => ROW * row + ROW / 2 + 2;
    shown.forEach((from, row) => {
      shown.forEach((to, other) => {
        const weight = weights[from][to];
        if (weight < FAINTEST) return;
        const [y, z, bend] = [middle(row), middle(other), (begin + end) / 2];
        const d = `M${begin} ${y} C${bend} ${y} ${bend} ${z} ${end} ${z}`;
        const line = svg("path", { d, opacity: Math.min(weight, 1).toFixed(3) });
        line.dataset.from = from;
        line.append(svg("title", {}, `${this.#tokens[from]} → ${this.#tokens[to]}: ${weight.toFixed(3)}`));
        lines.append(line);
      });
      const place = { y: middle(row) + 5 };
      const source = svg("text", { ...place, x: begin - 8, class: "from" }, short(this.#tokens[from]));
      const target = svg("text", { ...place, x: end + 8, class: "to" }, short(this.#tokens[from]));
      source.addEventListener("pointerenter", () => this.#only(from, weights));
      source.addEventListener("pointerleave", () => this.#only(null, weights));
      source.dataset.token = target.dataset.token = from;
      texts.push(source, target);
    });
    drawing.append(lines, ...texts);
  }

  /** Shows the lines of one token alone, or of all (null). */
  #only(from, weights) {
    for (const line of byId("lines").querySelectorAll("path")) {
      line.style.display = from === null || Number(line.dataset.from) === from ? "" : "none";
    }
    for (const text of byId("lines").querySelectorAll("text")) {
      const token = Number(text.dataset.token);
      const seen = text.matches(".from") ? token === from : from !== null && weights[from][token] >= FAINTEST;
      text.classList.toggle("dim", from !== null && !seen);
    }
  }

  #drawHeads() {
    if (!this.#weights.length) return;
    const grid = byId("heads");
    const colour = rgb(getComputedStyle(document.documentElement).getPropertyValue("--accent"));
    const heads = this.#weights[0].length;
    grid.style.gridTemplateColumns = `auto repeat(${heads}, auto)`;
    grid.replaceChildren(element("span"));
    for (let head = 0; head < heads; head++) grid.append(element("span", head + 1));
    this.#weights.forEach((layer, l) => {
      grid.append(element("span", l + 1));
      layer.forEach((weights, h) => {
        const button = element("button");
        button.type = "button";
        button.dataset.layer = l;
        button.dataset.head = h;
        button.setAttribute("aria-label", `Layer ${l + 1}, head ${h + 1}`);
        button.setAttribute("aria-pressed", l === byId("layer").selectedIndex && h === byId("head").selectedIndex);
        button.append(picture(weights, this.#tokens.length, colour));
        button.addEventListener("click", () => {
          byId("layer").selectedIndex = l;
          byId("head").selectedIndex = h;
          this.#draw();
        });
        grid.append(button);
      });
    });
  }
}

function options(select, count) {
  const kept = Math.min(Math.max(select.selectedIndex, 0), count - 1);
  select.replaceChildren(...Array.from({ length: count }, (_, i) => new Option(i + 1, i)));
  select.selectedIndex = kept;
}

/** One pixel for each pair of tokens, scaled up by the style sheet. */
function picture(weights, length, [red, green, blue]) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = length;
  const context = canvas.getContext("2d");
  const image = context.createImageData(length, length);
  for (let from = 0; from < length; from++) {
    for (let to = 0; to < length; to++) {
      // The square root lets weak attention be seen beside [CLS] and [SEP], which often take most of it.
      image.data.set([red, green, blue, 255 * Math.sqrt(weights[from][to])], 4 * (from * length + to));
    }
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

function rgb(hex) {
  return [1, 3, 5].map((at) => parseInt(hex.trim().slice(at, at + 2), 16));
}
