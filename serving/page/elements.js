export function element(tag, text = "", className = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

export function note(text) {
  return element("p", text, "note");
}

export function percent(share) {
  return `${(100 * share).toFixed(share >= 0.0995 ? 1 : 2)} %`;
}

const width = (share) => `${100 * Math.min(Math.max(share, 0), 1)}%`;

/**
 * A list of bars: {name, share (0 to 1), value (text)} and perhaps `said` (it is the answer), `from` (a share that is
 * marked by a line) or `choose` (called when it is pressed, as a button).
 */
export function bars(rows) {
  const list = element("ul", "", "bars");
  for (const { name, share, value, said, from, choose } of rows) {
    const item = element("li", "", said ? "said" : "");
    const track = element(choose ? "button" : "div", "", "track");
    const fill = element("span", "", "fill");
    fill.style.width = width(share);
    track.append(fill);
    if (from !== undefined) {
      const line = element("span", "", "from");
      line.style.left = width(from);
      track.append(line);
    }
    track.append(element("span", name, "name"));
    if (choose) {
      track.type = "button";
      track.addEventListener("click", choose);
    }
    item.append(track, element("span", value, "value"));
    list.append(item);
  }
  return list;
}

/** The first rows as bars, and the others behind a line that opens them. */
export function mostBars(rows, most = 10) {
  const shown = [bars(rows.slice(0, most))];
  if (rows.length > most) shown.push(folded(`${rows.length - most} more`, bars(rows.slice(most))));
  return shown;
}

/** Something behind a line that opens it. */
export function folded(summary, content) {
  const details = element("details");
  details.append(element("summary", summary), content);
  return details;
}

/**
 * A text with some of it marked: {start, end (code points), label, kind}, in order and apart. Kinds have colours of
 * their own, the same as long as the page is open.
 */
export function marked(text, parts, className = "") {
  const letters = Array.from(text); // the server counts code points, JavaScript's strings do not
  const shown = element("p", "", `marked ${className}`);
  let end = 0;
  for (const part of parts) {
    const mark = element("mark", letters.slice(part.start, part.end).join(""));
    if (part.kind !== undefined) mark.style.setProperty("--hue", hue(part.kind));
    if (part.label) mark.append("\u00a0", element("small", part.label));
    if (part.title) mark.title = part.title;
    shown.append(letters.slice(end, part.start).join(""), mark);
    end = part.end;
  }
  shown.append(letters.slice(end).join(""));
  return shown;
}

const kinds = new Map();

function hue(kind) {
  if (!kinds.has(kind)) kinds.set(kind, Math.round(210 + 137.5 * kinds.size) % 360); // far from those before
  return kinds.get(kind);
}
