"use strict";
// Everything below puts text on the page as text nodes; no markup is ever made from data.

const run = JSON.parse(document.getElementById("run-data").textContent);
const $ = (id) => document.getElementById(id);
const view = { current: 0, shown: run.episodes.map((_, index) => index), outcome: "all", width: 0 };

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

// -- making elements ------------------------------------------------------------------------------------------------

// Characters that nobody sees but that reorder or hide text are spelt out.
const visible = (text) =>
  text.replace(/[\u0000-\u0008\u000b-\u001f\u007f\u202a-\u202e\u2066-\u2069]/g,
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

function fold(title, ...children) {
  return make("details", "", make("summary", "", title), ...children);
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
const count = (number, one, many) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
const shortNumber = (value) => (Number.isInteger(value) ? String(value) : value.toFixed(Math.abs(value) < 10 ? 3 : 1));
const duration = (seconds) => (seconds < 1 ? `${Math.round(seconds * 1000)} ms` : `${seconds.toFixed(1)} s`);

// -- time on a line -------------------------------------------------------------------------------------------------

const STEPS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200];

function ticksOf([start, end], width) {
  const most = Math.max(2, Math.floor(width / 84));
  const step = STEPS.find((size) => (end - start) / size <= most) ?? (end - start) / 2;
  const ticks = [];
  for (let n = Math.ceil(start / step - 1e-9); n * step <= end + 1e-9; n += 1) ticks.push(n * step);
  return { ticks, digits: step < 1 ? 1 : 0 };
}

const share = ([start, end], seconds) => (100 * (seconds - start)) / Math.max(end - start, 1e-9);
const clip = (value) => Math.min(100, Math.max(0, value));

function lay(element, span, [start, end]) {
  const left = clip(share(span, start));
  element.style.left = `${left}%`;
  element.style.width = `${clip(share(span, end)) - left}%`;
  return element;
}

function axis(span, width) {
  const { ticks, digits } = ticksOf(span, width);
  const line = make("div", "axis");
  line.setAttribute("aria-hidden", "true");
  for (const tick of ticks) {
    const at = share(span, tick);
    const label = make("span", at < 2 ? "first" : at > 97 ? "last" : "", clock(tick, digits));
    label.style.left = `${at}%`;
    line.append(label);
  }
  return line;
}

function thin(items, most) {
  if (items.length <= most) return items;
  return Array.from({ length: most }, (_, i) => items[Math.floor(((2 * i + 1) * items.length) / (2 * most))]);
}

// Equal tiles over the time that the view covers, as many as fit when cut to 0.6 of a frame's width.
function strip(shown, span, width, height, note) {
  const film = make("div", "strip");
  film.style.height = `${height}px`;
  const natural = height * (shown.size_wh[0] / shown.size_wh[1]);
  const [from, to] = shown.span.map((seconds) => (width * clip(share(span, seconds))) / 100);
  const chosen = thin(shown.pictures, Math.max(1, Math.floor((to - from) / (0.6 * natural))));
  chosen.forEach(([seconds, number], place) => {
    const picture = make("img", "");
    picture.src = run.pictures[number];
    picture.alt = `frame at ${clock(seconds, 1)}`;
    picture.draggable = false;
    picture.style.left = `${from + ((to - from) * place) / chosen.length}px`;
    picture.style.width = `${(to - from) / chosen.length - 1}px`;
    film.append(picture);
  });
  if (!chosen.length) {
    film.style.height = "34px";
    film.append(make("p", "blank", note ? `no thumbnails: ${note}` : "no thumbnails"));
  }
  return film;
}

function frameTicks(shown, span) {
  const path = shown.at.map((seconds) => `M${share(span, seconds).toFixed(3)} 0V6`).join("");
  return drawing("svg", { class: "ticks", viewBox: "0 0 100 6", preserveAspectRatio: "none", "aria-hidden": "true" },
    drawing("path", { d: path }));
}

function row(name, ...content) {
  return make("div", "row", make("div", "name", name), make("div", "", ...content));
}

function lane(span, groups, says, width = 0) {
  const line = make("div", "lane");
  const segments = groups.flatMap(([, some]) => some);
  for (const [kind, some] of groups) line.append(...some.map((segment) => lay(make("i", `band ${kind}`), span, segment)));
  if (!says) return line;
  const left = segments.length ? Math.min(...segments.map(([start]) => clip(share(span, start)))) : 0;
  const right = segments.length ? Math.max(...segments.map(([, end]) => clip(share(span, end)))) : 0;
  const before = left > 100 - right && ((100 - right) / 100) * width < 7 * says.length + 14;
  const words = make("span", before ? "says before" : "says", says);
  words.style.left = before ? `${left}%` : segments.length ? `max(${right}%, calc(${left}% + 4px))` : "0";
  words.style.maxWidth = `${before ? left : 100 - right}%`;
  line.append(words);
  return line;
}

const spell = (segments) => {
  const shown = segments.slice(0, 3).map((segment) => between(segment)).join(", ");
  return segments.length > 3 ? `${shown} and ${segments.length - 3} more` : shown;
};

function timeline(episode, width) {
  const span = [0, episode.duration];
  const gutter = width < 520 ? 56 : width < 860 ? 68 : 84;
  const inner = width - gutter - (width < 520 ? 26 : 42);
  const figure = make("div", "timeline");
  figure.setAttribute("role", "group");
  figure.setAttribute("aria-label", `Timeline of the video, ${clock(episode.duration)}`);
  const guides = make("div", "guides");
  for (const tick of ticksOf(span, inner).ticks) {
    const guide = make("i", "");
    guide.style.left = `${share(span, tick)}%`;
    guides.append(guide);
  }
  figure.append(guides);
  for (const skim of episode.skims) {
    const film = strip(skim, span, inner, 62, episode.note);
    for (const segment of episode.truth.segments) film.append(lay(make("i", "over-truth"), span, segment));
    figure.append(row("Skim", film, frameTicks(skim, span)));
  }
  if (!episode.skims.length) figure.append(row("Skim", lane(span, [], "the model was shown no frames", inner)));
  episode.turns.forEach((turn, index) => {
    if (!turn.call) return;
    const shown = turn.crops.map((crop) => crop.span);
    figure.append(row(`Turn ${index + 1}`, lane(span, [["shown", shown], ["look", turn.call.segments]], spell(turn.call.segments), inner)));
  });
  const stands = episode.evidence.length > 0;
  const named = episode.answer && episode.answer.segments.length;
  figure.append(row(named ? "Answer" : "Evidence", lane(span, [["answer", episode.evidence]], stands ? spell(episode.evidence) : "none", inner)));
  if (episode.truth.segments.length) figure.append(row("Truth", lane(span, [["truth", episode.truth.segments]], spell(episode.truth.segments), inner)));
  figure.append(row("", axis(span, inner)));
  const key = (kind, words) => make("span", "", make("i", kind), words);
  figure.append(make("p", "legend", key("look", "looked at closer"),
    key("answer", named ? "the answer's segment" : "evidence: what it looked at last"),
    episode.truth.segments.length ? key("truth", "true segment") : null));
  return figure;
}

// -- one turn -------------------------------------------------------------------------------------------------------

function loupe(turn, episode, width) {
  const whole = [0, episode.duration];
  const views = turn.crops;
  const gap = width < 560 ? 0 : 14;
  const each = gap ? (width - gap * (views.length - 1)) / views.length : width;
  const fan = drawing("svg", { class: "fan", viewBox: "0 0 1000 22", preserveAspectRatio: "none", "aria-hidden": "true" });
  const map = make("div", "minimap");
  const lenses = make("div", "lenses");
  views.forEach((shown, index) => {
    map.append(lay(make("i", ""), whole, shown.span));
    const [from, to] = shown.span.map((seconds) => 10 * clip(share(whole, seconds)));
    const left = (1000 * index * (each + gap)) / width;
    const right = left + (1000 * each) / width;
    const thick = 4000 / width;
    fan.append(drawing("polygon", { points: `${from},0 ${Math.max(to, from + thick)},0 ${right},22 ${left},22` }));
    const lens = make("div", "lens", strip(shown, shown.span, each, 84, episode.note), frameTicks(shown, shown.span));
    const meets = ([start, end]) => start < shown.span[1] && end > shown.span[0];
    const length = shown.span[1] - shown.span[0];
    const widened = (segment) => segment.some((edge, side) => Math.abs(edge - shown.span[side]) > 0.01 * length);
    const asked = turn.call ? turn.call.segments.filter(meets).filter(widened) : [];
    for (const [kind, segments] of [["look", asked], ["answer", episode.answer ? episode.answer.segments : []], ["truth", episode.truth.segments]]) {
      const inside = segments.filter(meets);
      if (inside.length) lens.append(lane(shown.span, [[kind, inside]]));
    }
    const rate = `${count(shown.at.length, "frame", "frames")}, one every ${(length / shown.at.length).toFixed(2)} s, ${shown.size_wh[0]} × ${shown.size_wh[1]}`;
    lens.append(axis(shown.span, each), make("p", "caption", `${between(shown.span)} · ${rate}`));
    lenses.append(lens);
  });
  return make("div", "loupe", map, fan, lenses);
}

function costOf(turn) {
  const parts = [];
  if (turn.prompt_tokens !== null) parts.push(`${turn.prompt_tokens.toLocaleString("en")} tokens in`);
  if (turn.completion_tokens !== null) parts.push(`${turn.completion_tokens.toLocaleString("en")} out`);
  if (turn.seconds) parts.push(duration(turn.seconds));
  return parts.join(" · ");
}

function turnBlock(turn, index, episode, width) {
  const body = make("div", "");
  if (turn.thought) {
    const thought = make("p", "thought", turn.thought);
    thought.dir = "auto";
    body.append(thought);
  }
  if (turn.call) body.append(make("p", "act look", "Looks closer at ", make("b", "", spell(turn.call.segments))));
  if (turn.answer !== null) body.append(make("p", "act answer", "Answers ", make("b", "", turn.answer)));
  if (turn.problem) body.append(make("p", "note", `${turn.problem.message} (${turn.problem.reason})`));
  if (turn.error) body.append(make("p", "note", turn.error));
  if (turn.finish === "length") body.append(make("p", "note quiet", "The reply was cut by the token limit."));
  if (turn.crops.length) body.append(loupe(turn, episode, width - (width < 520 ? 0 : width < 860 ? 32 : 44)));
  body.append(fold("raw reply", make("pre", "", turn.raw || "(empty)")));
  if (turn.observation !== null) body.append(fold("what came back", make("pre", "", turn.observation || "(no text)")));
  const cost = costOf(turn);
  if (cost) body.append(make("p", "caption", cost));
  return make("section", "turn", make("p", "number", String(index + 1)), body);
}

// -- the episode ----------------------------------------------------------------------------------------------------

function optionsOf(episode) {
  const list = make("ol", "options");
  episode.options.forEach((text, index) => {
    const letter = String.fromCharCode(65 + index);
    const chosen = episode.answer && episode.answer.option === letter;
    const right = episode.truth.answer === letter;
    const says = [chosen ? "chosen" : "", right ? "true" : ""].filter(Boolean).join(", ");
    list.append(make("li", `${chosen ? "chosen " : ""}${right ? "true" : ""}`,
      make("span", "letter", letter), make("span", "", text), says ? make("em", "", says) : null));
  });
  return list;
}

function factsOf(episode) {
  const [mark, words] = OUTCOMES[episode.outcome];
  const facts = [];
  const answer = episode.answer ? episode.answer.option || episode.answer.text || "(empty)" : "none";
  facts.push(["Answer", make("span", "", `${answer} `, make("span", episode.outcome, mark)), words]);
  if (!episode.options.length && episode.truth.answer) facts.push(["True answer", episode.truth.answer]);
  if (episode.evidence.length) facts.push([episode.answer && episode.answer.segments.length ? "Segment" : "Evidence", spell(episode.evidence)]);
  if (episode.overlap !== null) facts.push(["Overlap with the truth", episode.overlap.toFixed(2), "temporal IoU"]);
  const boxes = [episode.answer ? episode.answer.boxes : 0, episode.truth.boxes];
  if (boxes[0] || boxes[1]) facts.push(["Boxes", `${boxes[0]} named`, `${boxes[1]} true`]);
  const looks = episode.turns.reduce((sum, turn) => sum + turn.crops.length, 0);
  facts.push(["Ended", STOPS[episode.stop] ?? episode.stop, `${count(episode.turns.length, "turn", "turns")}, ${count(looks, "crop", "crops")}`]);
  return make("dl", "facts", facts.map(([name, value, more]) =>
    make("div", "", make("dt", "", name), make("dd", "", value, more ? make("small", "", more) : null))));
}

function table(title, rows) {
  const made = make("table", "", make("caption", "", title));
  for (const [name, value, words] of rows) {
    const head = make("th", "", name);
    head.scope = "row";
    made.append(make("tr", "", head, make("td", words ? "words" : "", value)));
  }
  return made;
}

function scoreTable(episode) {
  return table("Score", episode.score.map(({ name, value, reason }) =>
    value === null ? [name, `not scored${reason ? `: ${reason}` : ""}`, true] : [name, reason ? `${shortNumber(value)} (${reason})` : shortNumber(value)]));
}

function costTable(episode) {
  const sum = (key) => {
    const known = episode.turns.map((turn) => turn[key]).filter((value) => value !== null);
    return known.length ? known.reduce((a, b) => a + b, 0).toLocaleString("en") : "not told";
  };
  return table("Cost", [
    ["tokens in, all turns", sum("prompt_tokens")], ["tokens out", sum("completion_tokens")],
    ["frames decoded", episode.frames_decoded.toLocaleString("en")], ["wall time", duration(episode.seconds)],
  ]);
}

function episodePage(episode, width) {
  const skim = episode.skims[0];
  const parts = [
    make("p", "over", [TASKS[episode.task] ?? episode.task, episode.video_name, clock(episode.duration), `policy ${episode.policy}`,
      `protocol ${episode.protocol}`, episode.single_pass ? "single pass" : null].filter(Boolean).map((words) => make("span", "", words))),
    make("h2", "", episode.question),
  ];
  parts[1].dir = "auto";
  if (episode.options.length) parts.push(optionsOf(episode));
  parts.push(factsOf(episode));
  const told = episode.problem && episode.turns.some((turn) => turn.problem && turn.problem.message === episode.problem.message);
  if (episode.problem && !told) parts.push(make("p", "note", `${episode.problem.message} (${episode.problem.reason})`));
  parts.push(make("h3", "", "The video"), timeline(episode, width));
  if (skim) {
    const every = (skim.span[1] - skim.span[0]) / skim.at.length;
    const thumbs = skim.pictures.length < skim.at.length ? `; ${skim.pictures.length} of them have a thumbnail here` : "";
    parts.push(make("p", "caption", `The model skimmed ${count(skim.at.length, "frame", "frames")}, one every ${every.toFixed(1)} s, ${skim.size_wh[0]} × ${skim.size_wh[1]} pixels${thumbs}.`));
  }
  if (episode.note) parts.push(make("p", "note quiet", `Thumbnails: ${episode.note}. Everything else below comes from the record.`));
  parts.push(make("h3", "", "Turn by turn"), make("div", "turns", episode.turns.map((turn, index) => turnBlock(turn, index, episode, width))));
  if (!episode.turns.length) parts.push(make("p", "note quiet", "The episode ended before its first turn."));
  parts.push(make("div", "tables", episode.score.length ? scoreTable(episode) : null, costTable(episode)));
  const prompt = make("pre", "", episode.prompt.flatMap((message) => [make("b", "", message.role), message.text]));
  const facts = { id: episode.id, rollout: episode.rollout, source: episode.source, video: episode.video, seed: episode.seed, settings: episode.settings };
  parts.push(make("h3", "", "The record"));
  if (episode.prompt.length) parts.push(fold("prompt", prompt));
  parts.push(fold("identity and settings", make("pre", "", JSON.stringify(facts, null, 2))));
  return parts;
}

// -- list, filters, keys --------------------------------------------------------------------------------------------

function listItem(episode, index) {
  const [mark, words] = OUTCOMES[episode.outcome];
  const spark = make("span", "spark");
  spark.setAttribute("aria-hidden", "true");
  const span = [0, episode.duration];
  for (const [kind, segments] of [["answer", episode.evidence], ["truth", episode.truth.segments]])
    for (const segment of segments) spark.append(lay(make("i", kind), span, segment));
  const kind = [TASKS[episode.task] ?? episode.task, clock(episode.duration), episode.single_pass ? "single pass" : null].filter(Boolean).join(" · ");
  const link = make("a", "", make("span", `verdict ${episode.outcome}`, mark, make("span", "hidden", words)),
    make("span", "ask", episode.question), make("span", "kind", kind),
    make("span", "figure", episode.overlap === null ? "" : `IoU ${episode.overlap.toFixed(2)}`), spark);
  link.href = `#${index + 1}`;
  return make("li", "", link);
}

function show(index, keepScroll = false) {
  view.current = index;
  const episode = run.episodes[index];
  view.width = $("main").clientWidth - parseFloat(getComputedStyle($("main")).paddingLeft) - parseFloat(getComputedStyle($("main")).paddingRight);
  $("preview").hidden = true;
  const open = new Set(keepScroll ? [...$("main").querySelectorAll("details")].flatMap((one, n) => (one.open ? [n] : [])) : []);
  $("main").replaceChildren(...episodePage(episode, view.width));
  $("main").querySelectorAll("details").forEach((one, n) => { one.open = open.has(n); });
  [...$("list").children].forEach((item, n) => {
    if (n === index) item.firstChild.setAttribute("aria-current", "true");
    else item.firstChild.removeAttribute("aria-current");
  });
  if (keepScroll) return;
  window.scrollTo(0, 0);
  const item = $("list").children[index];
  if (item && run.episodes.length > 1) {
    const box = $("nav");
    const top = item.offsetTop - ($("filters").hidden ? 0 : $("filters").offsetHeight);
    if (top < box.scrollTop) box.scrollTop = top;
    else if (item.offsetTop + item.offsetHeight > box.scrollTop + box.clientHeight) box.scrollTop = item.offsetTop + item.offsetHeight - box.clientHeight;
  }
  $("status").textContent = `Episode ${index + 1} of ${run.episodes.length}`;
}

function follow() {
  const wanted = /^#(\d+)$/.exec(location.hash);
  const index = wanted ? Number(wanted[1]) - 1 : view.current;
  show(index >= 0 && index < run.episodes.length ? index : 0);
}

function step(by) {
  const place = view.shown.indexOf(view.current);
  const next = place === -1 ? (by > 0 ? view.shown.find((n) => n > view.current) : view.shown.findLast((n) => n < view.current)) : view.shown[place + by];
  if (next !== undefined) location.hash = `#${next + 1}`;
}

function filter() {
  const words = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  view.shown = [];
  run.episodes.forEach((episode, index) => {
    const text = [episode.question, episode.video_name, episode.task, episode.policy, episode.stop, episode.id, ...episode.options].join(" ").toLowerCase();
    const fits = (view.outcome === "all" || episode.outcome === view.outcome) && words.every((word) => text.includes(word));
    $("list").children[index].hidden = !fits;
    if (fits) view.shown.push(index);
  });
  $("none-shown").hidden = view.shown.length > 0;
  $("status").textContent = count(view.shown.length, "episode fits", "episodes fit");
}

function chips(totals) {
  const choices = [["all", "All", run.episodes.length], ...Object.entries(totals).map(([name, total]) => [name, OUTCOMES[name][1], total])];
  for (const [name, words, total] of choices) {
    const chip = make("button", "", `${words} ${total}`);
    chip.type = "button";
    chip.setAttribute("aria-pressed", String(name === "all"));
    chip.addEventListener("click", () => {
      view.outcome = name;
      for (const other of $("chips").children) other.setAttribute("aria-pressed", String(other === chip));
      filter();
    });
    $("chips").append(chip);
  }
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target instanceof HTMLInputElement) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  if (event.key === "j") step(1);
  else if (event.key === "k") step(-1);
  else if (event.key === "o") {
    const all = [...$("main").querySelectorAll("details")];
    const open = all.some((one) => !one.open);
    for (const one of all) one.open = open;
  } else if (event.key === "/" && !$("filters").hidden) {
    event.preventDefault();
    $("search").focus();
  }
}

function onPointer(event) {
  const picture = event.target instanceof HTMLImageElement && event.target.closest(".strip") ? event.target : null;
  $("preview").hidden = !picture;
  if (!picture) return;
  $("preview-image").src = picture.src;
  $("preview-time").textContent = picture.alt;
  const box = picture.getBoundingClientRect();
  const card = $("preview").getBoundingClientRect();
  const above = box.top - card.height - 8;
  $("preview").style.top = `${above > 60 ? above : box.bottom + 8}px`;
  $("preview").style.left = `${Math.min(Math.max(8, box.left + box.width / 2 - card.width / 2), window.innerWidth - card.width - 8)}px`;
}

function turnTheme() {
  const order = ["", "dark", "light"];
  const next = order[(order.indexOf(document.documentElement.style.colorScheme) + 1) % order.length];
  document.documentElement.style.colorScheme = next;
  $("theme").setAttribute("aria-label", `Colour theme: ${next || "as the system"}`);
  $("theme").title = $("theme").getAttribute("aria-label");
}

function begin() {
  const totals = {};
  for (const name of Object.keys(OUTCOMES)) {
    const total = run.episodes.filter((episode) => episode.outcome === name).length;
    if (total) totals[name] = total;
  }
  const summary = Object.entries(totals).map(([name, total]) => `${total} ${OUTCOMES[name][1]}`);
  $("run-counts").textContent = run.episodes.length > 1 ? [count(run.episodes.length, "episode", "episodes"), ...summary].join(" · ") : "";
  $("list").append(...run.episodes.map(listItem));
  $("frame").classList.toggle("single", run.episodes.length === 1);
  $("filters").hidden = run.episodes.length < 8;
  chips(totals);
  $("search").addEventListener("input", filter);
  $("theme").addEventListener("click", turnTheme);
  addEventListener("keydown", onKey);
  addEventListener("hashchange", follow);
  document.addEventListener("pointerover", onPointer);
  new ResizeObserver(() => {
    const room = $("main").clientWidth - parseFloat(getComputedStyle($("main")).paddingLeft) - parseFloat(getComputedStyle($("main")).paddingRight);
    if (Math.abs(room - view.width) > 8) show(view.current, true);
  }).observe($("main"));
  follow();
}

begin();
