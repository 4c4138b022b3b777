// Where a served page has its episodes from: the server that sent it, one at a time.

const source = (() => {
  async function ask(address, signal) {
    let answer;
    try {
      answer = await fetch(address, { signal });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Error("The viewer does not answer. Is its command still running?");
    }
    if (!answer.ok) throw new Error((await answer.text()).trim() || `The viewer answered with status ${answer.status}.`);
    return answer.json();
  }
  const query = (run, key) => {
    const [id, rollout, step] = JSON.parse(key);
    return new URLSearchParams({ run, id, rollout, step: step ?? 0 });
  };
  return {
    served: true,
    list: () => ask("/api/list"),
    // Its note is about pictures, of which nothing is known yet.
    episode: async (run, key, signal) => ({ ...(await ask(`/api/episode?${query(run, key)}`, signal)), note: undefined }),
    // Pictures have to be decoded, so the episode is shown before they are there.
    async pictures(run, episode, signal) {
      const found = await ask(`/api/pictures?${query(run, keyOf(episode))}`, signal);
      attachPictures(episode, found, found.pictures);
    },
  };
})();
