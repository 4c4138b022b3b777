// The keyboard.

const KEYS = [
  ["j  ↓  →", "next episode"], ["k  ↑  ←", "previous episode"], ["Enter", "open the episode"], ["Esc", "back to the list"],
  ["/", "filter by words"], ["c", "side by side, or one run alone"], ["p", "play or pause the video"],
  ["o", "unfold or fold everything"], ["?", "this help"],
];

function makeHelp() {
  $("key-table").replaceChildren(...KEYS.map(([keys, words]) =>
    make("tr", "", make("th", "", keys.split("  ").map((key) => make("kbd", "", key))), make("td", "", words))));
}

function foldOrUnfold() {
  const all = [...$("main").querySelectorAll("details")];
  const open = all.some((one) => !one.open);
  for (const one of all) one.open = open;
}

function onListKey(event) {
  if (["j", "ArrowDown"].includes(event.key)) moveCursor(1);
  else if (["k", "ArrowUp"].includes(event.key)) moveCursor(-1);
  else if (["Enter", "c"].includes(event.key)) {
    if (event.key === "Enter" && event.target.closest("a, button, select")) return;
    const row = library.shown.find(({ key }) => key === library.cursor) ?? library.shown[0];
    if (row) open(row);
  } else return;
  event.preventDefault();
}

function onEpisodeKey(event) {
  const inVideo = event.target instanceof HTMLVideoElement;
  if (event.key === "j" || (event.key === "ArrowRight" && !inVideo)) step(1);
  else if (event.key === "k" || (event.key === "ArrowLeft" && !inVideo)) step(-1);
  else if (event.key === "Escape") back();
  else if (event.key === "c") besideOrAlone();
  else if (event.key === "o") foldOrUnfold();
  else if (event.key === "p") shown.stage?.playOrPause();
  else return;
  event.preventDefault();
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || $("help").open) return;
  if (event.target instanceof HTMLInputElement || event.target instanceof HTMLSelectElement) {
    if (event.key === "Escape" || (event.key === "Enter" && event.target === $("search"))) {
      event.target.blur();
      event.preventDefault();
    }
    return;
  }
  if (event.key === "?") $("help").showModal();
  else if (event.key === "/") {
    event.preventDefault();
    if (current.page === "episode") back();
    setTimeout(() => { $("search").focus(); $("search").select(); });
  } else if (current.page === "list") onListKey(event);
  else onEpisodeKey(event);
}
