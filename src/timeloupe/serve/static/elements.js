// Elements and words. Everything puts text on the page as text nodes; no markup is ever made from data.

const $ = (id) => document.getElementById(id);

const OUTCOMES = {
  right: ["✓", "right"], wrong: ["✗", "wrong"], unanswered: ["–", "no answer"], unknown: ["·", "no truth to compare"],
  fault: ["!", "machine fault"],
};
const STOPS = {
  answered: "answered", max_turns: "ran out of turns", max_tokens: "cut by the token limit",
  format: "reply could not be read", infrastructure: "machine fault",
};
const TASKS = {
  multiple_choice: "multiple choice", grounding: "grounding", multi_segment: "several segments",
  what_when_where: "what, when, where", open: "open question",
};

function keyOf({ id, rollout, step }) {
  return JSON.stringify([id, rollout, step]);
}

// Gives each view of an episode its pictures as [seconds, address]; `found` names them by number.
function attachPictures(episode, found, pictures) {
  const named = (some) => (some ?? []).map(([seconds, number]) => [seconds, pictures[number]]);
  const views = [...episode.skims, ...episode.turns.flatMap((turn) => turn.crops)];
  views.forEach((shown, n) => { shown.pictures = named(found.views[n]); });
  episode.stillPictures = named(found.stills);
  episode.duration = found.duration;
  episode.start = found.start;
  episode.note = found.note;
}

// -- making elements ------------------------------------------------------------------------------------------------

// Characters that nobody sees but that reorder or hide text are spelt out.
const visible = (text) =>
  text.replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]/g,
    (sign) => `⟨U+${sign.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`);

function make(tag, className, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  const present = children.flat().filter((child) => child !== null && child !== undefined && child !== false);
  made.append(...present.map((child) => (typeof child === "string" ? visible(child) : child)));
  return made;
}

function drawing(tag, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function button(className, words, act) {
  const made = make("button", className, words);
  made.type = "button";
  made.addEventListener("click", act);
  return made;
}

const cut = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

// Pieces that a browser can lay out one by one, as they come into sight; they end with a line where there are lines.
function piecesOf(text) {
  const pieces = [];
  for (let from = 0; from < text.length;) {
    let to = Math.min(text.length, from + 4000);
    if (to < text.length) {
      const line = text.lastIndexOf("\n", to - 1) + 1;
      if (line > from) to = line;
      else if (/[\ud800-\udbff]/.test(text[to - 1])) to -= 1;
    }
    pieces.push(text.slice(from, to));
    from = to;
  }
  return pieces;
}

// Long texts that the reader has asked for whole: an episode is laid out again when its pictures come or the window changes.
const whole = new Set();

// A model may say a megabyte in one word: the first part is shown, and the rest on demand.
function long(tag, className, text, most = 6000) {
  const made = make(tag, className, whole.has(text) ? "" : cut(text, most));
  made.dir = "auto";
  if (text.length <= most) return made;
  const showAll = () => made.replaceChildren(...piecesOf(text).map((piece) => make("span", "piece", piece)));
  if (whole.has(text)) {
    showAll();
    return make("div", "long", made);
  }
  const all = button("more", `Show all ${text.length.toLocaleString("en")} characters`, () => {
    whole.add(text);
    showAll();
    all.remove();
  });
  return make("div", "long", made, all);
}

// Content that is made when it is first unfolded.
function fold(title, content) {
  const made = make("details", "", make("summary", "", title));
  made.addEventListener("toggle", () => {
    if (made.open && made.childElementCount === 1) made.append(content());
  });
  return made;
}

// -- numbers as text ------------------------------------------------------------------------------------------------

function clock(seconds, digits = 0) {
  const scaled = Math.round(seconds * 10 ** digits) / 10 ** digits;
  const hours = Math.floor(scaled / 3600);
  const minutes = Math.floor((scaled % 3600) / 60);
  const rest = (scaled % 60).toFixed(digits).padStart(digits ? 3 + digits : 2, "0");
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${rest}` : `${minutes}:${rest}`;
}

const between = ([start, end], digits = 1) => `${clock(start, digits)} – ${clock(end, digits)}`;
const spell = (segments) => {
  const shown = segments.slice(0, 3).map((segment) => between(segment)).join(", ");
  return segments.length > 3 ? `${shown} and ${segments.length - 3} more` : shown;
};
const count = (number, one, many) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
const shortNumber = (value) => (Number.isInteger(value) ? String(value) : value.toFixed(Math.abs(value) < 10 ? 3 : 1));
const duration = (seconds) => (seconds < 1 ? `${Math.round(seconds * 1000)} ms` : `${seconds.toFixed(1)} s`);
const sideName = (side) => "AB"[side];
