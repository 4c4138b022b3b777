// One episode, from the question to the record behind it.

const letterOf = (index) => String.fromCharCode(65 + index);

// `episodes` are one, or the same example's in two runs.
function optionsOf(episodes) {
  const list = make("ol", "options");
  episodes[0].options.forEach((text, index) => {
    const letter = letterOf(index);
    const takers = episodes.flatMap((episode, side) => (episode.answer && episode.answer.option === letter ? [side] : []));
    const right = episodes[0].truth.answer === letter;
    const badges = episodes.length > 1 ? takers.map((side) => make("span", `badge side-${side}`, sideName(side))) : [];
    const says = [takers.length ? "chosen" : "", right ? "true" : ""].filter(Boolean).join(", ");
    const classes = [takers.length ? "chosen" : "", takers[0] === 1 ? "side-1" : "", right ? "true" : ""].filter(Boolean).join(" ");
    list.append(make("li", classes, make("span", "letter", letter), long("span", "text", text, 600),
      says ? make("em", "", badges, says) : null));
  });
  return list;
}

const answerOf = (episode) => (episode.answer ? episode.answer.option || episode.answer.text || "(empty)" : "none");

function verdict(episode) {
  const [mark, words] = OUTCOMES[episode.outcome];
  const made = make("span", episode.outcome, mark);
  made.title = words;
  return made;
}

function sumOf(episode, key) {
  const known = episode.turns.map((turn) => turn[key]).filter((value) => value !== null);
  return known.length ? known.reduce((a, b) => a + b, 0) : null;
}

function factsOf(episode) {
  const facts = [];
  facts.push(["Answer", make("span", "", make("span", "value", cut(answerOf(episode), 160)), " ", verdict(episode)), OUTCOMES[episode.outcome][1]]);
  if (!episode.options.length && episode.truth.answer) facts.push(["True answer", cut(episode.truth.answer, 160)]);
  if (episode.evidence.length) facts.push([episode.answer && episode.answer.segments.length ? "Segment" : "Evidence", spell(episode.evidence)]);
  if (episode.overlap !== null) facts.push(["Overlap with the truth", episode.overlap.toFixed(2), "temporal IoU"]);
  const boxes = [episode.answer ? episode.answer.boxes.length : 0, episode.truth.boxes.length];
  if (boxes[0] || boxes[1]) facts.push(["Boxes", `${boxes[0]} named`, `${boxes[1]} true`]);
  const looks = episode.turns.reduce((sum, turn) => sum + turn.crops.length, 0);
  facts.push(["Ended", STOPS[episode.stop] ?? episode.stop, `${count(episode.turns.length, "turn", "turns")}, ${count(looks, "crop", "crops")}`]);
  return make("dl", "facts", facts.map(([name, value, more]) =>
    make("div", "", make("dt", "", name), make("dd", "", value, more ? make("small", "", more) : null))));
}

function table(title, rows) {
  const made = make("table", "", make("caption", "", title));
  for (const [name, value, words] of rows) {
    const head = make("th", "", cut(name, 80));
    head.scope = "row";
    made.append(make("tr", "", head, make("td", words ? "words" : "", cut(value, 600))));
  }
  return made;
}

function scoreWords({ value, reason }) {
  if (value === null) return `not scored${reason ? `: ${reason}` : ""}`;
  return reason ? `${shortNumber(value)} (${reason})` : shortNumber(value);
}

function scoreTable(episode) {
  return table("Score", episode.score.map((part) => [part.name, scoreWords(part), part.value === null]));
}

const countedTokens = (episode, key) => {
  const sum = sumOf(episode, key);
  return sum === null ? "not told" : sum.toLocaleString("en");
};

function costTable(episode) {
  return table("Cost", [
    ["tokens in, all turns", countedTokens(episode, "prompt_tokens")], ["tokens out", countedTokens(episode, "completion_tokens")],
    ["frames decoded", episode.frames_decoded.toLocaleString("en")], ["wall time", duration(episode.seconds)],
  ]);
}

function overline(episode, more = []) {
  const known = episode.skims.length > 0; // where the truth ends says nothing of a video that nobody could read
  const words = [TASKS[episode.task] ?? episode.task, cut(episode.video_name, 120), known ? clock(episode.duration) : null, ...more].filter(Boolean);
  return make("p", "over", words.map((word) => make("span", "", word)));
}

function question(episode) {
  const made = long("h2", "", episode.question, 600);
  const heading = made.tagName === "H2" ? made : made.firstChild;
  if (episode.question.length > 160) heading.classList.add("lengthy");
  return made;
}

function problemOf(episode) {
  const told = episode.problem && episode.turns.some((turn) => turn.problem && turn.problem.message === episode.problem.message);
  return episode.problem && !told ? problemNote(episode.problem) : null;
}

function skimWords(episode) {
  const skim = episode.skims[0];
  if (!skim) return null;
  const every = (skim.span[1] - skim.span[0]) / skim.at.length;
  const thumbs = skim.pictures && skim.pictures.length < skim.at.length ? `; ${skim.pictures.length} of them have a thumbnail here` : "";
  return make("p", "caption", `The model skimmed ${count(skim.at.length, "frame", "frames")}, one every ${every.toFixed(1)} s, ${skim.size_wh[0]} × ${skim.size_wh[1]} pixels${thumbs}.`);
}

function recordOf(episode) {
  const facts = { id: episode.id, step: episode.step, rollout: episode.rollout, source: episode.source, video: episode.video, policy: episode.policy,
    protocol: episode.protocol, seed: episode.seed, settings: episode.settings };
  const prompt = () => make("div", "", episode.prompt.map((message) => make("div", "", make("p", "caption", message.role), long("pre", "", message.text))));
  return [
    episode.prompt.length ? fold("prompt", prompt) : null,
    fold("identity and settings", () => long("pre", "", JSON.stringify(facts, null, 2))),
  ];
}

function boxesSection(episode, boxes) {
  if (!boxes.some(([, some]) => some.length) || !(episode.stillPictures ?? []).length) return null;
  return [make("h3", "", "Boxes"), stills(episode, boxes)];
}

const boxesOf = (episode) => [["truth", episode.truth.boxes], ["answer", episode.answer ? episode.answer.boxes : []]];

// The head holds the stage, which outlives a new layout of the rest.
function episodeHead(episode, stage) {
  return [
    overline(episode, [`policy ${cut(episode.policy, 60)}`, `protocol ${cut(episode.protocol, 60)}`, episode.single_pass ? "single pass" : null]),
    question(episode),
    make("div", "head", stage.element, make("div", "", episode.options.length ? optionsOf([episode]) : null, factsOf(episode), problemOf(episode))),
  ];
}

function episodeBody(episode, width) {
  return [
    make("h3", "", "Timeline"), timeline(episode, width), skimWords(episode),
    episode.note ? make("p", "note quiet", `Thumbnails: ${episode.note}. Everything else comes from the record.`) : null,
    boxesSection(episode, boxesOf(episode)),
    make("h3", "", "Turn by turn"), turnBlocks(episode, width),
    make("div", "tables", episode.score.length ? scoreTable(episode) : null, costTable(episode)),
    make("h3", "", "The record"), recordOf(episode),
  ].flat().filter(Boolean);
}
