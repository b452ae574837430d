/**
 * Measures and reports. Contenders run in turns, round by round, in an order that turns each time, so
 * that other load on the machine meets all of them; a ratio is the median of the rounds' ratios.
 */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { arch, cpus, release, totalmem } from "node:os";
import { setImmediate } from "node:timers/promises";
import { fileURLToPath } from "node:url";

export const RESULTS = fileURLToPath(new URL("../results/", import.meta.url));

const MAX_THREADS_SHOWN = 4;
const MIN_THREAD_SHARE = 0.05;

export function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** Seconds that something takes. */
export async function seconds(work) {
  const start = performance.now();
  await work();
  return (performance.now() - start) / 1000;
}

/**
 * @param contenders name → a function of the round that gives a figure
 * @returns name → figures, one a round
 */
export async function interleave(rounds, contenders) {
  const names = Object.keys(contenders);
  const figures = Object.fromEntries(names.map((name) => [name, []]));
  for (let round = 0; round < rounds; round += 1) {
    for (let i = 0; i < names.length; i += 1) {
      const name = names[(i + round) % names.length];
      figures[name].push(await contenders[name](round));
      // A turn of the event loop, in which a signal can end the bench.
      await setImmediate();
    }
  }
  return figures;
}

/**
 * A row of the table, from the figures of `interleave`. `minRatio` and `maxRatio` are goals for the ratio
 * to the peer, `minFigure` and `maxFigure` are for the figure itself. A peer that has a name and no figures did not run.
 * @param row { what, unit, ours, peer?, peerName?, minRatio?, maxRatio?, minFigure?, maxFigure?, inReadme? }; `inReadme`
 * puts it into the README's short table, where a row whose goal is missed always stands.
 */
export function rowOf({ what, unit, ours, peer, peerName, inReadme, ...goals }) {
  const figure = median(ours);
  const ratio = peer && median(ours.map((value, i) => value / peer[i]));
  const row = {
    what,
    unit,
    ebsmount: figure,
    peerName,
    peer: peer && median(peer),
    ratio,
    inReadme,
  };
  return { ...row, ...judge(goals, { unit, figure, ratio }), samples: { ebsmount: ours, peer } };
}

/**
 * Two rows, rate and processor time a block, from turns as takeTurn gives them.
 * @param rate, cost each a goal and more for rowOf; without `cost` only the first row.
 */
export function compareTurns({ what, ours, peer, peerName, rate, cost }) {
  const figures = (key) => ({
    ours: ours.map((turn) => turn[key]),
    peer: peer?.map((turn) => turn[key]),
    peerName,
  });
  const rows = [rowOf({ what, unit: "MiB/s", ...figures("rate"), ...rate })];
  if (cost !== undefined) {
    const costWhat = `${what}: processor time a block`;
    rows.push(rowOf({ what: costWhat, unit: "ms", ...figures("cost"), ...cost }));
  }
  return rows;
}

/** @returns the goal in words, and whether it is met where that is known. */
function judge({ minRatio, maxRatio, maxFigure, minFigure }, { unit, figure, ratio }) {
  if (minFigure !== undefined) return { goal: `≥ ${minFigure} ${unit}`, met: figure >= minFigure };
  if (maxFigure !== undefined) return { goal: `≤ ${maxFigure} ${unit}`, met: figure <= maxFigure };
  if (minRatio !== undefined) {
    return { goal: `≥ ${minRatio} ×`, met: ratio === undefined ? undefined : ratio >= minRatio };
  }
  if (maxRatio !== undefined) {
    return { goal: `≤ ${maxRatio} ×`, met: ratio === undefined ? undefined : ratio <= maxRatio };
  }
  return {};
}

function short(value) {
  if (value === undefined) return "–";
  if (value >= 10_000) return `${(value / 1000).toFixed(1)} k`;
  return value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2);
}

export function machine() {
  const system = readFileSync("/etc/os-release", "utf8").match(/PRETTY_NAME="(.*)"/)?.[1] ?? "";
  return [
    `${cpus().length} × ${cpus()[0]?.model ?? arch()}`,
    `${Math.round(totalmem() / 2 ** 30)} GiB`,
    system,
    `Linux ${release()}`,
    `Node.js ${process.version}`,
  ].join(", ");
}

/** The table of rows in Markdown. */
export function tableOf(rows) {
  const lines = [
    "| what | ebsmount | peer | | ratio | goal | |",
    "|---|---:|---:|---|---:|---|---|",
  ];
  for (const row of rows) {
    const hasRun = row.peer !== undefined;
    const cells = [
      row.what,
      `${short(row.ebsmount)} ${row.unit}`,
      hasRun ? `${short(row.peer)} ${row.unit}` : row.peerName === undefined ? "" : "not run",
      row.peerName ?? "",
      row.ratio === undefined ? "" : `${short(row.ratio)} ×`,
      row.goal ?? "",
      row.met === undefined ? "" : row.met ? "met" : "missed",
    ];
    lines.push(`| ${cells.join(" | ")} |`);
  }
  return lines.join("\n");
}

/**
 * What one contender's turns cost, for the second table.
 * @param turns as takeTurn gives them, one a round.
 */
export function costOf(contender, { name }, turns) {
  const middle = (key) =>
    turns[0][key] === undefined ? undefined : median(turns.map((turn) => turn[key]));
  const threadLists = turns.map(({ threads }) => threads ?? []);
  const threadCount = Math.min(MAX_THREADS_SHOWN, ...threadLists.map((shares) => shares.length));
  return {
    contender: `${contender}, ${name}`,
    rate: middle("rate"),
    cost: middle("cost"),
    endpoint: middle("endpoint"),
    proxy: middle("proxy"),
    busy: median(turns.map(({ rate, cost }) => (rate * 2 * cost) / 1000)),
    threads: Array.from({ length: threadCount }, (_, i) =>
      median(threadLists.map((list) => list[i])),
    ),
    samples: turns,
  };
}

/** The table of costs in Markdown. */
export function costTableOf(costs) {
  const lines = [
    "| contender | MiB/s | processor time, ms a block | endpoint's | TLS proxy's | processors busy | busiest threads, share of the time |",
    "|---|---:|---:|---:|---:|---:|---|",
  ];
  for (const { contender, rate, cost, endpoint, proxy, busy, threads } of costs) {
    const shares = threads.filter((share) => share >= MIN_THREAD_SHARE);
    const busiest = shares.map((share) => `${Math.round(share * 100)} %`).join(", ");
    const cells = [
      contender,
      short(rate),
      short(cost),
      short(endpoint),
      short(proxy),
      short(busy),
      busiest,
    ];
    lines.push(`| ${cells.join(" | ")} |`);
  }
  return lines.join("\n");
}

/** Prints the tables and keeps them as results/NAME.json. @param costs as costOf gives them, if there are any. */
export function report(bench, rows, costs = []) {
  console.log(`\n## ${bench}\n\n${tableOf(rows)}\n`);
  if (costs.length > 0) console.log(`${costTableOf(costs)}\n`);
  mkdirSync(RESULTS, { recursive: true });
  const result = { bench, when: new Date().toISOString(), machine: machine(), rows, costs };
  writeFileSync(`${RESULTS}${bench}.json`, `${JSON.stringify(result, undefined, 1)}\n`);
}
