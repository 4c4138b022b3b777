// What the model said and did, turn by turn, with the crops that came back.

function loupe(turn, episode, width) {
  const whole = [0, episode.duration];
  const views = turn.crops;
  const gap = width < 560 ? 0 : 14;
  const each = gap ? (width - gap * (views.length - 1)) / views.length : width;
  const fan = drawing("svg", { class: "fan", viewBox: "0 0 1000 22", preserveAspectRatio: "none", "aria-hidden": "true" });
  const map = timed(make("div", "minimap"), whole);
  const lenses = make("div", gap ? "lenses" : "lenses stacked");
  views.forEach((shown, index) => {
    map.append(at(lay(make("i", ""), whole, shown.span), shown.span[0]));
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
      const inside = drawn(segments.filter(meets));
      if (inside.length) lens.append(lane(shown.span, [[kind, inside]]));
    }
    const rate = `${count(shown.at.length, "frame", "frames")}, one every ${(length / shown.at.length).toFixed(2)} s, ${shown.size_wh[0]} × ${shown.size_wh[1]}`;
    lens.append(axis(shown.span, each), make("p", "caption", `${between(shown.span)} · ${rate}`));
    lenses.append(lens);
  });
  return make("div", "loupe", map, gap ? fan : null, lenses);
}

function costOf(turn) {
  const parts = [];
  if (turn.prompt_tokens !== null) parts.push(`${turn.prompt_tokens.toLocaleString("en")} tokens in`);
  if (turn.completion_tokens !== null) parts.push(`${turn.completion_tokens.toLocaleString("en")} out`);
  if (turn.seconds) parts.push(duration(turn.seconds));
  return parts.join(" · ");
}

function problemNote(problem) {
  return long("p", "note", `${problem.message} (${problem.reason})`, 1200);
}

function turnBlock(turn, index, episode, width) {
  const narrow = width < 520;
  const body = make("div", "");
  if (turn.thought) body.append(long("p", "thought", turn.thought, 2400));
  if (turn.call) {
    const go = at(button("go", spell(turn.call.segments), () => {}), turn.call.segments[0][0]);
    body.append(make("p", "act look", "Looks closer at ", go));
  }
  if (turn.answer !== null) body.append(make("p", "act answer", "Answers ", long("b", "", turn.answer, 600)));
  if (turn.problem) body.append(problemNote(turn.problem));
  if (turn.error) body.append(long("p", "note", turn.error, 1200));
  if (turn.finish === "length") body.append(make("p", "note quiet", "The reply was cut by the token limit."));
  if (turn.crops.length) body.append(loupe(turn, episode, width - (narrow ? 0 : 44)));
  body.append(fold("raw reply", () => long("pre", "", turn.raw || "(empty)")));
  if (turn.observation !== null) body.append(fold("what came back", () => long("pre", "", turn.observation || "(no text)")));
  const cost = costOf(turn);
  if (cost) body.append(make("p", "caption", cost));
  return make("section", narrow ? "turn narrow" : "turn", make("p", "number", String(index + 1)), body);
}

function turnBlocks(episode, width) {
  if (!episode.turns.length) return make("p", "note quiet", "The episode ended before its first turn.");
  return make("div", "turns", episode.turns.map((turn, index) => turnBlock(turn, index, episode, width)));
}
