/**
 * All results as one table, with the machine they are from; with --readme, also between the marks in
 * the README.
 */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { RESULTS, tableOf } from "./report.mjs";

const BENCHES = ["warm-reads", "cold-reads", "first-read", "one-file", "memory", "writes"];
const START = "<!-- bench -->";
const END = "<!-- /bench -->";

const results = BENCHES.map((bench) => `${RESULTS}${bench}.json`)
  .filter(existsSync)
  .map((file) => JSON.parse(readFileSync(file, "utf8")));
if (results.length === 0) {
  console.error("There are no results yet: run ./scripts/bench/all first.");
  process.exit(1);
}
const newest = results.reduce((a, b) => (a.when > b.when ? a : b));
const text = [
  tableOf(results.flatMap(({ rows }) => rows)),
  `Machine: ${newest.machine}; ${newest.when.slice(0, 10)}.`,
].join("\n\n");
console.log(text);
if (process.argv.includes("--readme")) {
  const file = new URL("../../../README.md", import.meta.url);
  const readme = readFileSync(file, "utf8");
  const [before, rest] = readme.split(START);
  const after = rest?.split(END)[1];
  if (after === undefined) throw new Error(`README.md has no ${START} … ${END}.`);
  writeFileSync(file, `${before}${START}\n\n${text}\n\n${END}${after}`);
}
