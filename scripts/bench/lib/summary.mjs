/**
 * All results as one table, with the machine they are from. With --readme, all of it goes between the
 * marks in docs/benchmarks.md, and a short table between those in the README: the rows that are marked
 * for it, and every row whose goal is missed.
 */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { costTableOf, RESULTS, tableOf } from "./report.mjs";

const BENCHES = [
  "warm-reads",
  "cold-reads",
  "download",
  "upload",
  "slow-lines",
  "first-read",
  "one-file",
  "memory",
  "writes",
];
const START = "<!-- bench -->";
const END = "<!-- /bench -->";

const results = BENCHES.map((bench) => `${RESULTS}${bench}.json`)
  .filter(existsSync)
  .map((file) => JSON.parse(readFileSync(file, "utf8")));
if (results.length === 0) {
  console.error("There are no results yet: run ./scripts/bench/all first.");
  process.exit(1);
}
const rows = results.flatMap((result) => result.rows);
const costs = results.flatMap((result) => result.costs ?? []);
const newest = results.reduce((a, b) => (a.when > b.when ? a : b));
const machine = `Machine: ${newest.machine}; ${newest.when.slice(0, 10)}.`;
const all = [tableOf(rows), machine];
if (costs.length > 0) all.push(costTableOf(costs));
console.log(all.join("\n\n"));
if (process.argv.includes("--readme")) {
  const newcomers = rows.filter(({ inReadme, met }) => inReadme || met === false);
  putBetweenMarks("README.md", [tableOf(newcomers), machine]);
  putBetweenMarks("docs/benchmarks.md", all);
}

function putBetweenMarks(path, paragraphs) {
  const file = new URL(`../../../${path}`, import.meta.url);
  const [before, rest] = readFileSync(file, "utf8").split(START);
  const after = rest?.split(END)[1];
  if (after === undefined) throw new Error(`${path} has no ${START} … ${END}.`);
  writeFileSync(file, [`${before}${START}`, ...paragraphs, `${END}${after}`].join("\n\n"));
}
