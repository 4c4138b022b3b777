// The address says what is shown, so that a reload or a link shows the same:
//   #/?q=WORDS&sort=overlap                      the list with its filters
//   #/episode/ID?rollout=1&step=3&alone=b&t=12.5&q=…    an episode, reached from that list

const FILTERS = {
  q: "", outcome: "", stop: "", problem: "", figure: "overlap", low: "", high: "", change: "", side: "a", sort: "", down: "",
};

const freshState = () => ({ page: "list", id: "", rollout: 0, step: null, alone: "", t: null, filters: { ...FILTERS } });

function readAddress(hash) {
  const state = freshState();
  const [path, search] = hash.replace(/^#\/?/, "").split(/\?(.*)/s);
  const fields = new URLSearchParams(search ?? "");
  for (const name of Object.keys(FILTERS)) if (fields.has(name)) state.filters[name] = fields.get(name);
  if (!path.startsWith("episode/")) return state;
  state.page = "episode";
  try {
    state.id = decodeURIComponent(path.slice("episode/".length));
  } catch {
    state.id = path.slice("episode/".length);
  }
  state.rollout = /^\d{1,9}$/.test(fields.get("rollout") ?? "") ? Number(fields.get("rollout")) : 0;
  state.step = /^\d{1,9}$/.test(fields.get("step") ?? "") ? Number(fields.get("step")) : null;
  state.alone = ["a", "b"].includes(fields.get("alone")) ? fields.get("alone") : "";
  const seconds = parseFloat(fields.get("t") ?? "");
  state.t = Number.isFinite(seconds) ? seconds : null;
  return state;
}

function writeAddress(state) {
  const fields = new URLSearchParams();
  if (state.page === "episode") {
    if (state.rollout) fields.set("rollout", state.rollout);
    if (state.step !== null) fields.set("step", state.step);
    if (state.alone) fields.set("alone", state.alone);
    if (state.t !== null) fields.set("t", state.t.toFixed(2));
  }
  for (const [name, usual] of Object.entries(FILTERS)) if (state.filters[name] !== usual) fields.set(name, state.filters[name]);
  const query = fields.toString();
  return `#/${state.page === "episode" ? `episode/${encodeURIComponent(state.id)}` : ""}${query ? `?${query}` : ""}`;
}
