// The stage: the video, or the nearest picture where there is none to play, with the boxes of that moment over it.

const BOX_SECONDS = 0.5; // a box is drawn this long before and after its moment

class Stage {
  // `boxes` is a list of [kind, boxes].
  constructor(episode, boxes) {
    this.episode = episode;
    this.boxes = boxes;
    this.pictures = [];
    this.start = 0; // the file's own time of the first frame: the record counts from it, a browser does not
    this.now = null; // seconds, once somebody or an address has chosen a moment
    this.onTime = () => {};
    this.onChosen = () => {};
    this.screen = make("div", "screen");
    this.overlay = drawing("svg", { class: "boxes", viewBox: "0 0 100 100", preserveAspectRatio: "none", "aria-hidden": "true" });
    this.labels = make("div", "labels");
    this.words = make("figcaption", "");
    this.element = make("figure", "stage", make("div", "holder", this.screen), this.words);
    this.close = button("close", "×", () => { this.floats = false; this.place(true); });
    this.close.setAttribute("aria-label", "Dock the video");
    if (episode.play) this.showVideo(episode.play);
    else this.showPicture(episode.no_play ? `The video cannot be played: ${episode.no_play}.` : "");
    const seen = { rootMargin: "-90px 0px 0px", threshold: [0, 0.3, 0.5] };
    this.watch = new IntersectionObserver((entries) => this.place(entries.at(-1).intersectionRatio > 0.3), seen);
    this.watch.observe(this.element);
  }

  showVideo(address) {
    this.video = make("video", "");
    this.video.controls = true;
    this.video.preload = "metadata";
    this.video.playsInline = true;
    this.video.src = address;
    const failed = () => {
      if (!this.video) return;
      this.video = null;
      this.showPicture("This browser cannot play the file: the frames that the model saw stand in for it.");
    };
    this.video.addEventListener("error", failed);
    this.video.addEventListener("loadedmetadata", () => {
      if (!this.video.videoWidth) return failed(); // sound only: the pictures have a codec that the browser lacks
      this.screen.style.aspectRatio = `${this.video.videoWidth} / ${this.video.videoHeight}`;
      this.element.style.setProperty("--ratio", String(this.video.videoWidth / this.video.videoHeight));
      if (this.now !== null) this.sendVideo();
    });
    for (const event of ["timeupdate", "seeking", "seeked"])
      this.video.addEventListener(event, () => { if (this.video && this.video.readyState) this.tell(this.video.currentTime - this.start); });
    this.video.addEventListener("play", () => { this.floats = true; });
    this.screen.replaceChildren(this.video, this.overlay, this.labels, this.close);
  }

  showPicture(why) {
    this.why = why;
    this.image = make("img", "");
    this.image.alt = "";
    this.image.addEventListener("load", () => {
      this.screen.style.aspectRatio = `${this.image.naturalWidth} / ${this.image.naturalHeight}`;
      this.element.style.setProperty("--ratio", String(this.image.naturalWidth / this.image.naturalHeight));
    });
    this.screen.replaceChildren(this.image, this.overlay, this.labels, this.close);
    this.setPictures(this.pictures);
  }

  // A browser cuts times to its own precision: a millisecond later it is still the frame of that moment, never the one before.
  sendVideo() {
    this.video.currentTime = this.now + this.start + 0.001;
  }

  setStart(seconds) {
    if (!seconds || seconds === this.start) return;
    this.start = seconds;
    if (this.video && this.video.readyState && this.now !== null) this.sendVideo();
  }

  // Pictures as [seconds, address], of any view.
  setPictures(pictures) {
    this.pictures = [...pictures].sort((a, b) => a[0] - b[0]);
    if (this.video) return;
    this.element.classList.toggle("empty", this.pictures.length === 0);
    this.tell(this.now ?? this.pictures[0]?.[0] ?? 0);
  }

  seek(seconds) {
    this.now = Math.max(0, Math.min(seconds, this.episode.duration));
    this.floats = true;
    if (this.video && this.video.readyState) this.sendVideo();
    else this.tell(this.now);
    this.onChosen(this.now);
    this.place(this.inView);
  }

  playOrPause() {
    if (!this.video) return;
    if (this.video.paused) this.video.play().catch(() => {});
    else this.video.pause();
  }

  tell(seconds) {
    let moment = seconds;
    if (!this.video) {
      const nearest = this.pictures.reduce((best, one) =>
        (!best || Math.abs(one[0] - seconds) < Math.abs(best[0] - seconds) ? one : best), null);
      if (nearest) {
        [moment, this.image.src] = nearest;
        this.image.alt = `frame at ${clock(moment, 1)}`;
      }
      this.words.replaceChildren(visible([nearest ? `Frame at ${clock(moment, 1)}, as a thumbnail.` : "", this.why].filter(Boolean).join(" ")));
    } else {
      this.words.replaceChildren(`${clock(moment, 1)} of ${clock(this.episode.duration, 1)}`);
    }
    this.drawBoxes(moment);
    this.onTime(this.video ? moment : seconds);
  }

  drawBoxes(moment) {
    const shapes = [];
    const labels = [];
    for (const [kind, boxes] of this.boxes) {
      for (const { at: when, xyxy: [x1, y1, x2, y2], label } of boxes) {
        if (Math.abs(when - moment) > BOX_SECONDS) continue;
        shapes.push(drawing("rect", { class: kind, x: 100 * x1, y: 100 * y1, width: 100 * (x2 - x1), height: 100 * (y2 - y1) }));
        if (!label) continue;
        const words = make("span", kind, cut(label, 24));
        words.style.left = `${100 * x1}%`;
        words.style.top = `${100 * y1}%`;
        labels.push(words);
      }
    }
    this.overlay.replaceChildren(...shapes);
    this.labels.replaceChildren(...labels);
  }

  // Out of sight, a stage that is in use floats in the corner.
  place(inView) {
    this.inView = inView;
    const away = inView === false && this.floats && !this.element.classList.contains("empty");
    const holder = this.screen.parentElement;
    holder.style.height = away ? `${holder.clientHeight}px` : "";
    this.screen.classList.toggle("floating", Boolean(away));
  }

  end() {
    this.watch.disconnect();
    if (!this.video) return;
    const video = this.video;
    this.video = null;
    video.pause();
    video.removeAttribute("src");
    video.load(); // gives the connection back
  }
}

// Frames that boxes are in, with the boxes drawn on them.
function stills(episode, boxes) {
  const line = make("div", "stills");
  for (const [seconds, address] of episode.stillPictures ?? []) {
    const picture = make("img", "");
    picture.src = address;
    picture.alt = `frame at ${clock(seconds, 1)}`;
    const over = drawing("svg", { class: "boxes", viewBox: "0 0 100 100", preserveAspectRatio: "none", "aria-hidden": "true" });
    for (const [kind, some] of boxes)
      for (const { at: when, xyxy: [x1, y1, x2, y2] } of some)
        if (Math.abs(when - seconds) < 0.05)
          over.append(drawing("rect", { class: kind, x: 100 * x1, y: 100 * y1, width: 100 * (x2 - x1), height: 100 * (y2 - y1) }));
    const still = at(make("button", "still", make("span", "picture", picture, over), make("span", "caption", clock(seconds, 1))), seconds);
    still.type = "button";
    line.append(still);
  }
  return line;
}
