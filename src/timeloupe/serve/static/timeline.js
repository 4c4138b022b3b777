// Time on a line: axes, filmstrips, and lanes of segments. What has a time can be clicked to go there.

const STEPS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200];

// From an element whose width is time to the [start, end] it covers.
const spanOf = new WeakMap();

function timed(element, span) {
  spanOf.set(element, span);
  return element;
}

function at(element, seconds) {
  element.dataset.at = String(seconds);
  return element;
}

function ticksOf([start, end], width) {
  const most = Math.max(2, Math.floor(width / 84));
  const step = STEPS.find((size) => (end - start) / size <= most) ?? (end - start) / 2;
  const ticks = [];
  for (let n = Math.ceil(start / step - 1e-9); n * step <= end + 1e-9 && ticks.length < 200; n += 1) ticks.push(n * step);
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
  const line = timed(make("div", "axis"), span);
  line.setAttribute("aria-hidden", "true");
  for (const tick of ticks) {
    const place = share(span, tick);
    const label = make("span", place < 2 ? "first" : place > 97 ? "last" : "", clock(tick, digits));
    label.style.left = `${place}%`;
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
  const film = timed(make("div", "strip"), span);
  film.style.height = `${height}px`;
  const natural = height * (shown.size_wh[0] / shown.size_wh[1]);
  const [from, to] = shown.span.map((seconds) => (width * clip(share(span, seconds))) / 100);
  const chosen = thin(shown.pictures ?? [], Math.max(1, Math.floor((to - from) / (0.6 * natural))));
  chosen.forEach(([seconds, address], place) => {
    const picture = at(make("img", ""), seconds);
    picture.src = address;
    picture.alt = `frame at ${clock(seconds, 1)}`;
    picture.draggable = false;
    picture.style.left = `${from + ((to - from) * place) / chosen.length}px`;
    picture.style.width = `${(to - from) / chosen.length - 1}px`;
    film.append(picture);
  });
  if (!chosen.length) {
    film.style.height = "34px";
    film.append(make("p", "blank", note === undefined ? "reading frames …" : note ? `no thumbnails: ${note}` : "no thumbnails"));
  }
  return film;
}

function frameTicks(shown, span) {
  const path = shown.at.map((seconds) => `M${clip(share(span, seconds)).toFixed(3)} 0V6`).join("");
  return drawing("svg", { class: "ticks", viewBox: "0 0 100 6", preserveAspectRatio: "none", "aria-hidden": "true" },
    drawing("path", { d: path }));
}

function row(name, ...content) {
  return make("div", "row", make("div", "name", name), make("div", "", ...content));
}

function lane(span, groups, says, width = 0) {
  const line = timed(make("div", "lane"), span);
  const segments = groups.flatMap(([, some]) => some);
  for (const [kind, some] of groups)
    line.append(...some.map((segment) => at(lay(make("i", `band ${kind}`), span, segment), segment[0])));
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

function boxLane(episode, span) {
  const line = timed(make("div", "lane"), span);
  for (const [kind, boxes] of [["truth", episode.truth.boxes], ["answer", episode.answer ? episode.answer.boxes : []]])
    for (const box of boxes.slice(0, 400)) {
      const mark = at(make("i", `point ${kind}`), box.at);
      mark.style.left = `${clip(share(span, box.at))}%`;
      line.append(mark);
    }
  return line;
}

// Segments by the hundred are drawn as far as anyone can tell them apart.
const drawn = (segments) => segments.slice(0, 200);

function timeline(episode, width) {
  const span = [0, episode.duration];
  const gutter = width < 520 ? 56 : width < 860 ? 68 : 84;
  const inner = width - gutter - (width < 520 ? 26 : 42);
  const figure = make("div", width < 520 ? "timeline narrow" : "timeline");
  figure.setAttribute("role", "group");
  figure.setAttribute("aria-label", `Timeline of the video, ${clock(episode.duration)}`);
  figure.style.setProperty("--gutter", `${gutter}px`);
  const guides = timed(make("div", "guides"), span);
  for (const tick of ticksOf(span, inner).ticks) {
    const guide = make("i", "");
    guide.style.left = `${share(span, tick)}%`;
    guides.append(guide);
  }
  const playhead = make("b", "playhead");
  playhead.hidden = true;
  guides.append(playhead);
  figure.append(guides);
  for (const skim of episode.skims) {
    const film = strip(skim, span, inner, 62, episode.note);
    for (const segment of drawn(episode.truth.segments)) film.append(lay(make("i", "over-truth"), span, segment));
    figure.append(row("Skim", film, frameTicks(skim, span)));
  }
  if (!episode.skims.length) figure.append(row("Skim", lane(span, [], "the model was shown no frames", inner)));
  episode.turns.forEach((turn, index) => {
    if (!turn.call) return;
    const shown = turn.crops.map((crop) => crop.span);
    figure.append(row(`Turn ${index + 1}`, lane(span, [["shown", shown], ["look", drawn(turn.call.segments)]], spell(turn.call.segments), inner)));
  });
  const stands = episode.evidence.length > 0;
  const named = episode.answer && episode.answer.segments.length;
  figure.append(row(named ? "Answer" : "Evidence", lane(span, [["answer", drawn(episode.evidence)]], stands ? spell(episode.evidence) : "none", inner)));
  if (episode.truth.segments.length) figure.append(row("Truth", lane(span, [["truth", drawn(episode.truth.segments)]], spell(episode.truth.segments), inner)));
  if (episode.truth.boxes.length || (episode.answer && episode.answer.boxes.length)) figure.append(row("Boxes", boxLane(episode, span)));
  figure.append(row("", axis(span, inner)));
  const key = (kind, words) => make("span", "", make("i", kind), words);
  figure.append(make("p", "legend", episode.turns.some((turn) => turn.call) ? key("look", "looked at closer") : null,
    key("answer", named ? "the answer's segment" : "evidence: what it looked at last"),
    episode.truth.segments.length ? key("truth", "true segment") : null));
  return figure;
}
