/**
 * Measures and reports. Contenders run in turns, round by round, with the order turned each time, so
 * that what else the machine does meets all of them; a ratio is the median of the rounds' ratios.
 */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { arch, cpus, release, totalmem } from "node:os";
import { fileURLToPath } from "node:url";

export const RESULTS = fileURLToPath(new URL("../results/", import.meta.url));

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
    }
  }
  return figures;
}

/**
 * A row of the table, from the figures of `interleave`. `atLeast` is a goal for the ratio to the peer,
 * `atMost` one for the figure itself.
 * @param row { what, unit, ours, peer?, peerName?, atLeast?, atMost? }
 */
export function rowOf({ what, unit, ours, peer, peerName, atLeast, atMost }) {
  const figure = median(ours);
  const ratio = peer && median(ours.map((value, i) => value / peer[i]));
  const row = { what, unit, ebsmount: figure, peerName, peer: peer && median(peer), ratio };
  if (atLeast !== undefined) Object.assign(row, { goal: `≥ ${atLeast} ×`, met: ratio >= atLeast });
  if (atMost !== undefined) {
    Object.assign(row, { goal: `≤ ${atMost} ${unit}`, met: figure <= atMost });
  }
  return { ...row, samples: { ebsmount: ours, peer } };
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

/** The table in Markdown. */
export function tableOf(rows) {
  const lines = [
    "| what | ebsmount | peer | | ratio | goal | |",
    "|---|---:|---:|---|---:|---|---|",
  ];
  for (const row of rows) {
    const cells = [
      row.what,
      `${short(row.ebsmount)} ${row.unit}`,
      row.peer === undefined ? "" : `${short(row.peer)} ${row.unit}`,
      row.peerName ?? "",
      row.ratio === undefined ? "" : `${short(row.ratio)} ×`,
      row.goal ?? "",
      row.met === undefined ? "" : row.met ? "met" : "missed",
    ];
    lines.push(`| ${cells.join(" | ")} |`);
  }
  return lines.join("\n");
}

/** Prints the table and keeps it as results/NAME.json. */
export function report(bench, rows) {
  console.log(`\n## ${bench}\n\n${tableOf(rows)}\n`);
  mkdirSync(RESULTS, { recursive: true });
  const result = { bench, when: new Date().toISOString(), machine: machine(), rows };
  writeFileSync(`${RESULTS}${bench}.json`, `${JSON.stringify(result, undefined, 1)}\n`);
}
