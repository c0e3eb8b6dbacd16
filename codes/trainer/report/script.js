"use strict";
// Reads out charts under the pointer and plays sounds, one at a time. Without it the browser's own players stand there.

function number(value) {
  return Math.abs(value) >= 1e4 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(5)));
}

function nearest(points, x) {
  let low = 0, high = points.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (points[middle][0] < x) low = middle; else high = middle;
  }
  return Math.abs(points[low][0] - x) <= Math.abs(points[high][0] - x) ? points[low] : points[high];
}

for (const figure of document.querySelectorAll(".chart")) {
  const data = JSON.parse(figure.dataset.chart);
  const frame = figure.querySelector(".frame"), cursor = figure.querySelector(".cursor");
  const readout = figure.querySelector(".readout");
  frame.addEventListener("pointermove", (event) => {
    const area = frame.getBoundingClientRect();
    const share = Math.min(1, Math.max(0, (event.clientX - area.left) / area.width));
    const x = data.box[0] + share * (data.box[1] - data.box[0]);
    const read = data.lines.map((line) => ({ line, point: nearest(line.points, x) }));
    const at = read.reduce((a, b) => (Math.abs(a.point[0] - x) <= Math.abs(b.point[0] - x) ? a : b)).point[0];
    cursor.style.display = "block";
    cursor.style.left = `${(100 * (at - data.box[0])) / (data.box[1] - data.box[0])}%`;
    readout.textContent = `${data.x} ${number(at)}  `;
    for (const { line, point } of read) {
      const entry = document.createElement("span"), key = document.createElement("i");
      key.className = `run-${line.run}`;
      entry.append(key, `${line.name} ${number(point[1])}`, point[0] === at ? "" : ` (${number(point[0])})`);
      readout.append(entry);
    }
  });
  frame.addEventListener("pointerleave", () => { cursor.style.display = "none"; readout.textContent = ""; });
}

let playing = null;
document.documentElement.dataset.scripted = "yes";  // own buttons in place of the browser's controls

for (const figure of document.querySelectorAll(".sound")) {
  const audio = figure.querySelector("audio"), button = figure.querySelector("button");
  const picture = figure.querySelector(".picture"), head = figure.querySelector(".head");
  if (!audio || !button) continue;
  const draw = () => {
    if (audio.duration) head.style.left = `${(100 * audio.currentTime) / audio.duration}%`;
    if (!audio.paused) requestAnimationFrame(draw);
  };
  const start = () => {
    if (playing && playing !== audio) playing.pause();
    playing = audio;
    audio.play();
  };
  button.addEventListener("click", () => (audio.paused ? start() : audio.pause()));
  picture.addEventListener("click", (event) => {
    const area = picture.getBoundingClientRect();
    const share = Math.min(1, Math.max(0, (event.clientX - area.left) / area.width));
    const seek = () => { audio.currentTime = share * audio.duration; start(); };
    if (audio.duration) seek(); else { audio.addEventListener("loadedmetadata", seek, { once: true }); audio.load(); }
  });
  audio.addEventListener("play", () => {
    figure.classList.add("playing");
    button.setAttribute("aria-pressed", "true");
    head.style.display = "block";
    draw();
  });
  for (const name of ["pause", "ended"]) {
    audio.addEventListener(name, () => {
      figure.classList.remove("playing");
      button.setAttribute("aria-pressed", "false");
    });
  }
}
