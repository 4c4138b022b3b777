// The same example in two runs, side by side.

const CHANGES = {
  "": "All rows", any: "Rows that changed", better: "Got better in B", worse: "Got worse in B", outcome: "Outcome changed",
  same: "Unchanged rows", alone: "Only in one run",
};

const RANK = { right: 3, unknown: 2, wrong: 1, unanswered: 1, fault: 0 };

// What of a row differs between the runs, by the names of the filter.
function changesOf([one, other]) {
  if (!one || !other) return ["any", "alone"];
  const found = [];
  const rank = RANK[other.outcome] - RANK[one.outcome];
  const gain = one.overlap !== null && other.overlap !== null ? other.overlap - one.overlap : 0;
  if (one.outcome !== other.outcome) found.push("outcome");
  if (rank > 0 || (rank === 0 && gain > 1e-9)) found.push("better");
  if (rank < 0 || (rank === 0 && gain < -1e-9)) found.push("worse");
  const differs = ["answer", "stop", "problem"].some((name) => one[name] !== other[name]);
  if (found.length || differs || JSON.stringify(one.evidence) !== JSON.stringify(other.evidence)) found.push("any");
  else found.push("same");
  return found;
}

function signed(value, words) {
  if (value === null || Math.abs(value) < 5e-4) return "";
  return `${value > 0 ? "+" : "−"}${words(Math.abs(value))}`;
}

function compareTable(episodes, titles) {
  const made = make("table", "compare");
  const head = make("tr", "", make("td", ""));
  titles.forEach((title, side) => {
    const cell = make("th", "", make("span", `badge side-${side}`, sideName(side)), cut(title, 60));
    cell.scope = "col";
    head.append(cell);
  });
  head.append(make("td", "", "B − A"));
  made.append(head);
  const line = (name, values, differs, change = "") => {
    const title = make("th", "", cut(name, 60));
    title.scope = "row";
    made.append(make("tr", differs ? "differs" : "", title, values.map((value) => make("td", "", value)), make("td", "change", change)));
  };
  const numbers = (name, values, words, unknown = "–") => {
    const difference = values.some((value) => value === null) ? null : values[1] - values[0];
    line(name, values.map((value) => (value === null ? unknown : words(value))), values[0] !== values[1], signed(difference, words));
  };
  const texts = (name, values) => line(name, values.map((value) => cut(value, 160)), values[0] !== values[1]);
  const outcomes = episodes.map((episode) => make("span", "", make("span", "value", cut(answerOf(episode), 160)), " ", verdict(episode)));
  line("Answer", outcomes, answerOf(episodes[0]) !== answerOf(episodes[1]) || episodes[0].outcome !== episodes[1].outcome);
  texts("Segment", episodes.map((episode) => (episode.evidence.length ? spell(episode.evidence) : "none")));
  numbers("Overlap (IoU)", episodes.map((episode) => episode.overlap), (value) => value.toFixed(2));
  for (const name of new Set(episodes.flatMap((episode) => episode.score.map((part) => part.name)))) {
    const parts = episodes.map((episode) => episode.score.find((part) => part.name === name));
    numbers(name, parts.map((part) => (part ? part.value : null)), shortNumber, "not scored");
  }
  texts("Ended", episodes.map((episode) => STOPS[episode.stop] ?? episode.stop));
  numbers("Turns", episodes.map((episode) => episode.turns.length), String);
  numbers("Crops", episodes.map((episode) => episode.turns.reduce((sum, turn) => sum + turn.crops.length, 0)), String);
  const whole = (value) => value.toLocaleString("en");
  numbers("Tokens in", episodes.map((episode) => sumOf(episode, "prompt_tokens")), whole, "not told");
  numbers("Tokens out", episodes.map((episode) => sumOf(episode, "completion_tokens")), whole, "not told");
  numbers("Seconds", episodes.map((episode) => episode.seconds), (value) => value.toFixed(1));
  texts("Policy", episodes.map((episode) => episode.policy));
  texts("Protocol", episodes.map((episode) => episode.protocol));
  return make("div", "scroll", made);
}

function compareBoxes(episodes) {
  const named = episodes.map((episode) => (episode.answer ? episode.answer.boxes : []));
  return [["truth", episodes[0].truth.boxes], ["answer", named[0]], ["other", named[1]]];
}

function compareHead(episodes, titles, stage) {
  const first = episodes[0];
  return [
    overline(first), question(first),
    make("div", "head", stage.element, make("div", "", first.options.length ? optionsOf(episodes) : null, compareTable(episodes, titles))),
  ];
}

function compareBody(episodes, titles, width) {
  const stacked = width < 820;
  const each = stacked ? width : (width - 36) / 2;
  const columns = episodes.map((episode, side) => {
    const column = make("section", `side side-${side}`,
      make("h3", "", make("span", `badge side-${side}`, sideName(side)), cut(titles[side], 80)),
      timeline(episode, each), skimWords(episode), problemOf(episode), turnBlocks(episode, each),
      make("div", "tables", episode.score.length ? scoreTable(episode) : null, costTable(episode)), recordOf(episode));
    column.setAttribute("aria-label", `Run ${sideName(side)}`);
    return column;
  });
  return [boxesSection(episodes[0], compareBoxes(episodes)), make("div", stacked ? "sides stacked" : "sides", columns)].flat().filter(Boolean);
}
