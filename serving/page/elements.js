export function element(tag, text = "", className = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

/** A list of bars: {name, share (0 to 1), value (text)}. */
export function bars(rows) {
  const list = element("ul", "", "bars");
  for (const { name, share, value } of rows) {
    const item = element("li");
    const track = element("div", "", "track");
    const fill = element("div", "", "fill");
    fill.style.width = `${100 * Math.min(Math.max(share, 0), 1)}%`;
    track.append(fill, element("span", name, "name"));
    item.append(track, element("span", value, "value"));
    list.append(item);
  }
  return list;
}
