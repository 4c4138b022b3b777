// What is shown now, and how it changes.

let current = readAddress(location.hash);
const shown = { stage: null, episodes: [], sides: [], width: 0, asked: null };

// -- going somewhere ------------------------------------------------------------------------------------------------

function go(state, { replace = false } = {}) {
  const address = writeAddress(state);
  if (address === (location.hash || "#/")) return;
  if (replace) history.replaceState(null, "", address);
  else history.pushState(null, "", address);
  follow();
}

// As `go`, when what is on the page is right already.
function note(state) {
  current = state;
  history.replaceState(null, "", writeAddress(state));
}

const open = (row, alone = current.alone) =>
  go({ ...current, page: "episode", id: row.id, rollout: row.rollout, step: row.step, alone, t: null });

const back = () => go({ ...current, page: "list", id: "", rollout: 0, step: null, t: null });

function step(by) {
  const key = keyOf(current);
  const place = library.shown.findIndex((row) => row.key === key);
  const next = place === -1 ? library.shown[0] : library.shown[place + by];
  if (next) open(next);
}

function besideOrAlone() {
  if (library.runs.length < 2) return say("There is one run here: name a second one after it to see them side by side.");
  go({ ...current, alone: current.alone ? "" : current.filters.side }, { replace: true });
}

function say(words) {
  $("status").textContent = words;
  $("status").classList.add("told");
  clearTimeout(say.timer);
  say.timer = setTimeout(() => $("status").classList.remove("told"), 4000);
}

// -- one episode ----------------------------------------------------------------------------------------------------

function roomFor(element) {
  const style = getComputedStyle(element);
  return element.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
}

function leaveEpisode() {
  shown.asked?.abort();
  shown.stage?.end();
  shown.stage = null;
  shown.episodes = [];
  whole.clear();
  $("preview").hidden = true;
}

function episodeBar(row) {
  const place = library.shown.indexOf(row);
  const where = place === -1 ? "outside the filter" : `${(place + 1).toLocaleString("en")} of ${library.shown.length.toLocaleString("en")}`;
  const previous = button("quiet", "‹ Previous", () => step(-1));
  const next = button("quiet", "Next ›", () => step(1));
  previous.disabled = place < 1;
  next.disabled = place === library.shown.length - 1;
  const parts = [button("quiet back", "← All episodes", back), make("span", "where", where), previous, next];
  if (library.runs.length > 1) {
    const choice = (alone, words) => {
      const made = button("", words, () => go({ ...current, alone }, { replace: true }));
      made.setAttribute("aria-pressed", String(current.alone === alone));
      made.disabled = Boolean(row && alone && !row.sides["ab".indexOf(alone)]);
      return made;
    };
    parts.push(make("span", "switch", choice("", "Side by side"), choice("a", "A alone"), choice("b", "B alone")));
  }
  $("episode-bar").replaceChildren(...parts);
}

async function showEpisode() {
  leaveEpisode();
  const key = keyOf(current);
  const row = library.rows.find((one) => one.key === key);
  library.cursor = key;
  episodeBar(row);
  if (!row) {
    $("main").replaceChildren(make("p", "note", `There is no episode ${JSON.stringify(cut(current.id, 120))}${current.step === null ? "" : `, step ${current.step},`}${current.rollout ? `, roll-out ${current.rollout},` : ""} here. It may not be written yet: reload the page.`));
    return;
  }
  const there = row.sides.flatMap((entry, side) => (entry ? [side] : []));
  const wanted = current.alone ? ["ab".indexOf(current.alone)] : there;
  const sides = wanted.filter((side) => there.includes(side));
  shown.sides = sides.length ? sides : there;
  const asked = new AbortController();
  shown.asked = asked;
  const slow = setTimeout(() => $("main").replaceChildren(make("p", "caption", "Loading …")), 200);
  try {
    const episodes = await Promise.all(shown.sides.map((side) => source.episode(side, key, asked.signal)));
    clearTimeout(slow);
    if (asked.signal.aborted) return;
    layOutEpisode(episodes, there);
    if (source.served) setTimeout(() => fetchPictures(episodes, asked), 80);
  } catch (error) {
    clearTimeout(slow);
    if (!asked.signal.aborted) $("main").replaceChildren(make("p", "note", error.message));
  }
}

function layOutEpisode(episodes, there) {
  shown.episodes = episodes;
  const two = episodes.length > 1;
  shown.stage = new Stage(episodes[0], two ? compareBoxes(episodes) : boxesOf(episodes[0]));
  shown.stage.onTime = movePlayheads;
  shown.stage.onChosen = (seconds) => note({ ...current, t: seconds });
  const titles = library.runs.map((run) => run.title);
  $("main").classList.toggle("wide", two);
  const only = !two && library.runs.length > 1
    ? make("p", "over", make("span", "", make("span", `badge side-${shown.sides[0]}`, sideName(shown.sides[0])), titles[shown.sides[0]]),
      there.length < 2 ? make("span", "", "the other run has no such episode") : null) : null;
  const head = two ? compareHead(episodes, titles, shown.stage) : episodeHead(episodes[0], shown.stage);
  $("main").replaceChildren(make("div", "", only, head), make("div", "body"));
  layOutBody();
  scrollTo(0, 0);
  shown.stage.setPictures(episodes.flatMap(allPictures));
  if (current.t !== null) shown.stage.seek(current.t);
}

const allPictures = (episode) =>
  [...episode.skims, ...episode.turns.flatMap((turn) => turn.crops)].flatMap((view) => view.pictures ?? []).concat(episode.stillPictures ?? []);

// Lays out all but the stage, which goes on playing; keeps what was unfolded.
function layOutBody() {
  const body = $("main").querySelector(".body");
  const room = roomFor($("main"));
  if (!body || !shown.episodes.length || room < 80) return; // a window that is being closed has no room
  shown.width = room;
  const open = new Set([...body.querySelectorAll("details")].flatMap((one, n) => (one.open ? [n] : [])));
  const titles = library.runs.map((run) => run.title);
  body.replaceChildren(...(shown.episodes.length > 1 ? compareBody(shown.episodes, titles, shown.width) : episodeBody(shown.episodes[0], shown.width)));
  body.querySelectorAll("details").forEach((one, n) => { one.open = open.has(n); });
  if (shown.stage && shown.stage.now !== null) movePlayheads(shown.stage.now);
}

async function fetchPictures(episodes, asked) {
  if (asked.signal.aborted) return;
  await Promise.all(episodes.map((episode, n) => source.pictures(shown.sides[n], episode, asked.signal).catch((error) => {
    if (!asked.signal.aborted) episode.note = error.message;
  })));
  if (asked.signal.aborted) return;
  const scroll = scrollY;
  layOutBody();
  scrollTo(0, scroll);
  shown.stage?.setStart(episodes[0].start);
  shown.stage?.setPictures(episodes.flatMap(allPictures));
}

function movePlayheads(seconds) {
  for (const playhead of document.querySelectorAll(".playhead")) {
    const span = spanOf.get(playhead.parentElement);
    playhead.hidden = false;
    playhead.style.left = `${clip(share(span, seconds))}%`;
  }
}

// -- what the pointer does ------------------------------------------------------------------------------------------

function onClick(event) {
  if (!shown.stage) return;
  const named = event.target.closest("[data-at]");
  if (named) return shown.stage.seek(Number(named.dataset.at));
  const line = event.target.closest(".strip, .lane, .axis, .minimap");
  if (!line) return;
  const box = line.getBoundingClientRect();
  const [start, end] = spanOf.get(line);
  shown.stage.seek(start + ((end - start) * (event.clientX - box.left)) / box.width);
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
  $("preview").style.left = `${Math.min(Math.max(8, box.left + box.width / 2 - card.width / 2), innerWidth - card.width - 8)}px`;
}

function turnTheme() {
  const order = ["", "dark", "light"];
  const next = order[(order.indexOf(document.documentElement.style.colorScheme) + 1) % order.length];
  useTheme(next);
  try { localStorage.setItem("timeloupe-theme", next); } catch { /* a page in a private window keeps nothing */ }
}

function useTheme(name) {
  document.documentElement.style.colorScheme = ["dark", "light"].includes(name) ? name : "";
  $("theme").setAttribute("aria-label", `Colour theme: ${document.documentElement.style.colorScheme || "as the system"}`);
  $("theme").title = $("theme").getAttribute("aria-label");
}

// -- beginning ------------------------------------------------------------------------------------------------------

function follow() {
  const before = current;
  current = readAddress(location.hash);
  const alone = library.rows.length === 1;
  if (alone && current.page === "list") {
    const [row] = library.rows;
    current = { ...current, page: "episode", id: row.id, rollout: row.rollout, step: row.step };
  }
  $("episode-bar").hidden = alone && library.runs.length === 1;
  const onList = current.page === "list";
  $("browse").hidden = $("filters").hidden = !onList;
  $("main").hidden = $("episode").hidden = onList;
  showFilters();
  if (!onList) {
    applyFilters();
    showEpisode();
    document.title = `${cut(visible(current.id), 60)} · timeloupe`;
    return;
  }
  leaveEpisode();
  $("main").replaceChildren();
  document.title = `${library.runs.map((run) => visible(run.title)).join(" and ")} · timeloupe`;
  applyFilters();
  if (before.page === "episode" && library.cursor) {
    bringIntoView(library.cursor);
    drawRows();
  }
}

function setFilter(name, value) {
  library.cursor = null;
  note({ ...current, filters: { ...current.filters, [name]: value } });
  showFilters();
  applyFilters();
  scrollTo(0, 0);
}

function sortBy(name) {
  const again = current.filters.sort === name;
  current.filters.sort = name;
  setFilter("down", again ? (current.filters.down ? "" : "1") : ["overlap", "score", "id", ""].includes(name) ? "" : "1");
}

function listen() {
  $("search").addEventListener("input", () => setFilter("q", $("search").value));
  for (const name of ["outcome", "stop", "problem", "figure", "low", "high", "change", "side"])
    $(name).addEventListener("input", () => setFilter(name, $(name).value));
  $("sort").addEventListener("input", () => sortBy($("sort").value));
  $("down").addEventListener("click", () => setFilter("down", current.filters.down ? "" : "1"));
  for (const head of $("heads").querySelectorAll("[data-sort]")) head.addEventListener("click", () => sortBy(head.dataset.sort));
  for (const name of ["clear", "clear-too"])
    $(name).addEventListener("click", () => {
      note({ ...current, filters: { ...FILTERS, sort: current.filters.sort, down: current.filters.down } });
      showFilters();
      applyFilters();
    });
  $("theme").addEventListener("click", turnTheme);
  $("keys").addEventListener("click", () => $("help").showModal());
  $("close-help").addEventListener("click", () => $("help").close());
  addEventListener("keydown", onKey);
  addEventListener("popstate", follow);
  addEventListener("scroll", () => drawRows(), { passive: true });
  addEventListener("resize", () => drawRows(true));
  $("main").addEventListener("click", onClick);
  document.addEventListener("pointerover", onPointer);
  new ResizeObserver(() => {
    if (shown.episodes.length && Math.abs(roomFor($("main")) - shown.width) > 8) layOutBody();
  }).observe($("main"));
  new ResizeObserver(() => {
    document.documentElement.style.setProperty("--top", `${$("top").offsetHeight}px`);
    drawRows();
  }).observe($("top"));
}

async function begin() {
  let theme = "";
  try { theme = localStorage.getItem("timeloupe-theme") ?? ""; } catch { /* as above */ }
  useTheme(theme);
  makeHelp();
  try {
    library.runs = (await source.list()).runs;
  } catch (error) {
    $("none-yet").textContent = error.message;
    $("none-yet").hidden = $("browse").hidden = false;
    return;
  }
  library.rows = joinRuns(library.runs);
  library.parts = partsOf(library.runs);
  $("run-title").replaceChildren(...library.runs.map((run, side) =>
    make("span", "", library.runs.length > 1 ? make("span", `badge side-${side}`, sideName(side)) : null, cut(run.title, 80))));
  makeFilters();
  listen();
  follow();
}

begin();
