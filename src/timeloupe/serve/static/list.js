// The list: which episodes fit, in which order, and the lines that can be seen of them.

const byName = new Intl.Collator("en", { numeric: true }).compare;

// The lines of one or two runs, joined by example, roll-out and step of a training. `sides` holds an entry per run, or null.
function joinRuns(runs) {
  const rows = new Map();
  runs.forEach((run, side) => {
    for (const entry of run.entries) {
      const key = keyOf(entry);
      if (!rows.has(key)) rows.set(key, { key, id: entry.id, rollout: entry.rollout, step: entry.step, order: rows.size, sides: runs.map(() => null) });
      rows.get(key).sides[side] = entry;
    }
  });
  const joined = [...rows.values()];
  for (const row of joined) row.changes = runs.length > 1 ? changesOf(row.sides) : [];
  return joined;
}

const figureOf = (entry, name) => (name === "overlap" ? entry.overlap : entry.score[name.replace(/^score:/, "")] ?? null);

// The run whose figures the filters and the order look at; the other one's if it has no such episode.
const lookedAt = (row, filters) => row.sides[filters.side === "b" ? row.sides.length - 1 : 0] ?? row.sides.find(Boolean);

function fits(row, filters) {
  const entry = lookedAt(row, filters);
  const words = filters.q.toLowerCase().split(/\s+/).filter(Boolean);
  const holds = (side, word) => (/^step:\d+$/.test(word) ? side.step === Number(word.slice(5)) : side.words.includes(word));
  if (!words.every((word) => row.sides.some((side) => side && holds(side, word)))) return false;
  if (filters.outcome && entry.outcome !== filters.outcome) return false;
  if (filters.stop && entry.stop !== filters.stop) return false;
  if (filters.problem && (filters.problem === "any" ? entry.problem === null : entry.problem !== filters.problem.replace(/^is:/, ""))) return false;
  if (filters.change && !row.changes.includes(filters.change)) return false;
  const low = parseFloat(filters.low);
  const high = parseFloat(filters.high);
  if (Number.isNaN(low) && Number.isNaN(high)) return true;
  const value = figureOf(entry, filters.figure);
  return value !== null && !(value < low) && !(value > high);
}

const SORTS = {
  "": (row) => row.order,
  overlap: (row, filters) => lookedAt(row, filters).overlap,
  score: (row, filters) => figureOf(lookedAt(row, filters), shownPart(filters)),
  tokens: (row, filters) => lookedAt(row, filters).tokens,
  seconds: (row, filters) => lookedAt(row, filters).seconds,
  turns: (row, filters) => lookedAt(row, filters).turns,
  change: ({ sides: [one, other] }) => (one && other && one.overlap !== null && other.overlap !== null ? other.overlap - one.overlap : null),
};

function ordered(rows, filters) {
  const sign = filters.down ? -1 : 1;
  if (filters.sort === "id") return [...rows].sort((a, b) => sign * byName(a.id, b.id) || a.step - b.step || a.rollout - b.rollout);
  const measure = SORTS[filters.sort] ?? SORTS[""];
  const found = rows.map((row) => [measure(row, filters), row]);
  // What has no such figure stands last in either direction.
  found.sort(([a, one], [b, other]) =>
    (a === null) - (b === null) || (a === null ? 0 : sign * (a - b)) || one.order - other.order);
  return found.map(([, row]) => row);
}

const partsOf = (runs) => [...new Set(runs.flatMap((run) => run.entries.flatMap((entry) => Object.keys(entry.score))))];

// The part of the score that the list has a column for.
const shownPart = (filters) => (filters.figure !== "overlap" ? filters.figure : library.parts.length ? `score:${library.parts[0]}` : "");

// -- one line -------------------------------------------------------------------------------------------------------

function sparkOf(entries) {
  const spark = make("span", "spark");
  spark.setAttribute("aria-hidden", "true");
  const known = entries.filter(Boolean);
  const span = [0, Math.max(...known.map((entry) => entry.duration ?? 1))];
  entries.forEach((entry, side) => {
    for (const segment of entry ? entry.evidence : []) spark.append(lay(make("i", side ? "other" : "answer"), span, segment));
  });
  for (const segment of known[0].truth) spark.append(lay(make("i", "truth"), span, segment));
  return spark;
}

function listItem(row, place, filters) {
  const sides = row.sides;
  const main = sides.find(Boolean);
  // A figure of each run, one below the other.
  const cell = (name, words) => make("span", `cell ${name}`, sides.map((entry) => make("span", "", entry ? words(entry) : sides.length > 1 ? "–" : "")));
  const marks = make("span", "cell verdicts", sides.map((entry) =>
    (entry ? make("span", `verdict ${entry.outcome}`, OUTCOMES[entry.outcome][0], make("span", "hidden", OUTCOMES[entry.outcome][1])) : make("span", "verdict unknown", " "))));
  const part = shownPart(filters);
  const decimal = (value) => (value === null ? "" : value.toFixed(2));
  const about = [cut(row.id, 60), row.step === null ? null : `step ${row.step}`, row.rollout ? `roll-out ${row.rollout}` : null, TASKS[main.task] ?? main.task, main.duration === null ? null : clock(main.duration),
    sides.every((entry) => !entry || entry.single_pass) ? "single pass" : null].filter(Boolean).join(" · ");
  const ended = (entry) => (entry.problem ? `${STOPS[entry.stop] ?? entry.stop}: ${entry.problem}` : STOPS[entry.stop] ?? entry.stop);
  const brief = (entry) => [entry.answer === null ? "no answer" : cut(entry.answer, 24), entry.overlap === null ? null : `IoU ${entry.overlap.toFixed(2)}`,
    count(entry.turns, "turn", "turns"), duration(entry.seconds)].filter(Boolean).join(" · ");
  const letters = sides.length > 1 ? make("span", "cell letters", sides.map((_, side) => make("span", `badge side-${side}`, sideName(side)))) : null;
  const asked = make("span", "ask", make("span", "words", main.question), make("span", "about", about));
  asked.firstChild.dir = "auto";
  const link = make("a", "", letters, marks, asked,
    cell("said", (entry) => (entry.answer === null ? "–" : cut(entry.answer, 60))), sparkOf(sides),
    cell("number overlap", (entry) => decimal(entry.overlap)),
    part ? cell("number score", (entry) => { const value = figureOf(entry, part); return value === null ? "" : shortNumber(value); }) : null,
    cell("number turns", (entry) => String(entry.turns)),
    cell("number tokens", (entry) => (entry.tokens === null ? "" : entry.tokens.toLocaleString("en"))),
    cell("number seconds", (entry) => entry.seconds.toFixed(1)),
    cell("ended", ended), cell("brief", brief));
  link.href = writeAddress({ ...freshState(), page: "episode", id: row.id, rollout: row.rollout, step: row.step, filters });
  const item = make("li", "", link);
  item.setAttribute("aria-posinset", String(place + 1));
  item.setAttribute("aria-setsize", String(library.shown.length));
  return item;
}

// -- the lines in sight ---------------------------------------------------------------------------------------------

const library = { runs: [], rows: [], shown: [], parts: [], cursor: null, drawn: "" };

const rowHeight = () => parseFloat(getComputedStyle($("list")).getPropertyValue("--row"));

function drawRows(anew = false) {
  if ($("browse").hidden) return;
  const height = rowHeight();
  const top = -$("list").getBoundingClientRect().top;
  const from = Math.max(0, Math.floor(top / height) - 8);
  const to = Math.min(library.shown.length, Math.ceil((top + innerHeight) / height) + 8);
  const wanted = `${from} ${to} ${height} ${library.cursor}`;
  if (!anew && wanted === library.drawn) return;
  library.drawn = wanted;
  const focused = document.activeElement?.closest?.("#list li")?.getAttribute("aria-posinset");
  $("list").style.height = `${library.shown.length * height}px`;
  $("list").replaceChildren(...library.shown.slice(from, to).map((row, n) => {
    const item = listItem(row, from + n, current.filters);
    item.style.top = `${(from + n) * height}px`;
    if (row.key === library.cursor) item.firstChild.setAttribute("aria-current", "true");
    return item;
  }));
  if (focused) $("list").querySelector(`li[aria-posinset="${focused}"] a`)?.focus({ preventScroll: true });
}

function applyFilters() {
  library.shown = ordered(library.rows.filter((row) => fits(row, current.filters)), current.filters);
  const total = library.rows.length;
  const shown = library.shown.length;
  $("shown-count").textContent = shown === total ? count(total, "episode", "episodes") : `${shown.toLocaleString("en")} of ${count(total, "episode", "episodes")}`;
  $("none-shown").hidden = shown > 0 || total === 0;
  $("none-yet").hidden = total > 0;
  $("heads").hidden = shown === 0;
  $("clear").hidden = writeAddress({ ...freshState(), filters: { ...current.filters, sort: "", down: "" } }) === "#/";
  for (const head of $("heads").querySelectorAll("[data-sort]")) {
    const here = head.dataset.sort === current.filters.sort;
    head.setAttribute("aria-pressed", String(here));
    head.lastChild.textContent = here ? (current.filters.down ? " ↓" : " ↑") : "";
  }
  drawRows(true);
}

function bringIntoView(key) {
  const place = library.shown.findIndex((row) => row.key === key);
  if (place === -1) return;
  const height = rowHeight();
  const top = $("list").getBoundingClientRect().top + place * height;
  const covered = $("top").offsetHeight;
  if (top < covered) scrollBy(0, top - covered);
  else if (top + height > innerHeight) scrollBy(0, top + height - innerHeight + 8);
}

function moveCursor(by) {
  const place = library.shown.findIndex((row) => row.key === library.cursor);
  const next = place === -1 ? (by > 0 ? 0 : library.shown.length - 1) : place + by;
  if (!library.shown[next]) return;
  library.cursor = library.shown[next].key;
  bringIntoView(library.cursor);
  drawRows();
}

// -- the filters ----------------------------------------------------------------------------------------------------

function choices(select, options) {
  select.replaceChildren(...options.map(([value, words]) => {
    const option = make("option", "", cut(words, 60));
    option.value = value;
    return option;
  }));
}

function counted(select, usual, find, words) {
  const totals = new Map();
  for (const row of library.rows)
    for (const entry of row.sides) if (entry && find(entry) !== null) totals.set(find(entry), (totals.get(find(entry)) ?? 0) + 1);
  choices(select, [["", usual], ...[...totals].sort((a, b) => b[1] - a[1]).map(([name, total]) => words(name, total))]);
  select.hidden = totals.size === 0;
  return totals;
}

function makeFilters() {
  counted($("outcome"), "All outcomes", (entry) => entry.outcome, (name, total) => [name, `${OUTCOMES[name][1]} (${total})`]);
  counted($("stop"), "All endings", (entry) => entry.stop, (name, total) => [name, `${STOPS[name] ?? name} (${total})`]);
  const problems = counted($("problem"), "All problems", (entry) => entry.problem, (name, total) => [`is:${name}`, `${name} (${total})`]);
  if (problems.size) $("problem").children[0].after(new Option("with a problem", "any"));
  const parts = library.parts.map((name) => [`score:${name}`, name]);
  choices($("figure"), [["overlap", "overlap (IoU)"], ...parts]);
  const two = library.runs.length > 1;
  $("change").hidden = $("side").hidden = !two;
  choices($("change"), Object.entries(CHANGES));
  choices($("side"), library.runs.map((run, side) => [sideName(side).toLowerCase(), `Filter and sort by ${sideName(side)}`]));
  const sorts = [["", "as recorded"], ["id", "id"], ["overlap", "overlap"], ...(parts.length ? [["score", "score"]] : []),
    ["turns", "turns"], ["tokens", "tokens"], ["seconds", "seconds"], ...(two ? [["change", "change of overlap"]] : [])];
  choices($("sort"), sorts);
  $("browse").classList.toggle("two", two);
  $("browse").classList.toggle("scored", parts.length > 0);
}

function showFilters() {
  for (const name of ["outcome", "stop", "problem", "figure", "low", "high", "change", "side", "sort"]) {
    const field = $(name);
    field.value = current.filters[name];
    if (field.value !== current.filters[name]) { // an address may name what this run does not have
      field.value = FILTERS[name];
      current.filters[name] = FILTERS[name];
    }
    field.classList.toggle("set", current.filters[name] !== FILTERS[name]);
  }
  if ($("search").value !== current.filters.q) $("search").value = current.filters.q;
  $("down").textContent = current.filters.down ? "↓" : "↑";
  $("down").setAttribute("aria-label", current.filters.down ? "Largest first" : "Smallest first");
  $("head-score").firstChild.textContent = shownPart(current.filters).replace(/^score:/, "") || "score";
}
