// The chart of the rate: bars of good and bad events for each second of the last minutes.

const EVERY = 1000; // milliseconds
const box = document.getElementById("chart");
let chart = null;

export function begin() {
  draw([[], [], []]);
  new ResizeObserver(() => chart.setSize(size())).observe(box);
  // Its colours are the page's, so it is drawn anew where those change.
  addEventListener("theme", () => draw(chart.data));
  update();
  setInterval(update, EVERY);
}

async function update() {
  if (document.hidden) return;
  let rate;
  try {
    const answer = await fetch(box.dataset.url);
    if (!answer.ok) return;
    rate = await answer.json();
  } catch {
    return; // the collector is away, which the page says elsewhere
  }
  const { seconds, good, bad } = rate;
  // The bars stand behind each other: the taller is the sum, and bad ones are at its foot.
  chart.setData([seconds, good.map((count, at) => count + bad[at]), bad]);
  tell("good", good);
  tell("bad", bad);
}

function tell(verdict, counts) {
  const write = (what, count) => {
    document.getElementById(`${verdict}-${what}`).textContent = count.toLocaleString("en");
  };
  write("sum", counts.reduce((total, each) => total + each, 0));
  write("rate", counts.at(-2)); // the last second that is over
}

function draw(data) {
  chart?.destroy();
  chart = new uPlot(options(), data, box);
}

const size = () => ({ width: box.clientWidth, height: box.clientHeight });

function options() {
  const colour = (name) => getComputedStyle(document.querySelector(name)).color;
  const axis = { stroke: colour(".rate dt"), font: "11px system-ui, sans-serif", ticks: { show: false } };
  const grid = { stroke: getComputedStyle(document.querySelector(".top")).borderBottomColor, width: 1 };
  const paths = uPlot.paths.bars({ size: [0.8, 12] });
  const series = (fill) => ({ fill, paths, points: { show: false }, width: 0 });
  return {
    ...size(),
    // Half of a time's width, where it stands under the last second.
    padding: [null, 28, null, null],
    legend: { show: false },
    cursor: { show: false },
    // The times of the page are UTC.
    tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "UTC"),
    scales: { x: { range: (_, first, last) => [first - 0.5, last + 0.5] }, y: { range: (_, __, most) => [0, Math.max(4, most * 1.1)] } },
    axes: [
      { ...axis, size: 22, gap: 7, grid: { show: false }, values: [[1, "{HH}:{mm}:{ss}"]], space: 80 },
      { ...axis, size: 40, grid, space: 16, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000] },
    ],
    series: [{}, series(colour(".swatch.good")), series(colour(".swatch.bad"))],
  };
}
