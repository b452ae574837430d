/** The table of faults is the one that docs/endpoint.md lists. */
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { OPERATIONS } from "../../src/server/call.js";
import { wordsOf } from "../../src/server/fault-rule.js";
import { FAULTS, type FaultAction } from "../../src/server/fault-table.js";
import { parseFaultText, valueWord } from "../../src/server/fault-text.js";
import { ServiceError } from "../../src/server/service-error.js";

const DOCS = new URL("../../docs/endpoint.md", import.meta.url);

/** Short for what the operations' names begin with. */
const SHORT: Readonly<Record<string, string>> = {
  StartSnapshot: "start",
  PutSnapshotBlock: "put",
  CompleteSnapshot: "complete",
  ListSnapshotBlocks: "list",
  ListChangedBlocks: "changes",
  GetSnapshotBlock: "get",
};

function rowOf(name: FaultAction): string {
  const { does, strikes = OPERATIONS, error } = FAULTS[name];
  const all = strikes.length === OPERATIONS.length;
  const of = all ? "all" : strikes.map((operation) => SHORT[operation]).join(", ");
  return `| \`${name}\` | ${valueWord(name)} | ${of} | ${does}${error === undefined ? "" : `: ${said(name)}`} |`;
}

function said(name: FaultAction): string {
  const error = FAULTS[name].error!;
  const { status } = new ServiceError(error.name, "", error.reason, error.status);
  const reason = error.reason === undefined ? "" : `, ${error.reason}`;
  return `${status} ${error.name}${reason}, “${error.message.replace("%s", "snap-…")}”`;
}

test("docs/endpoint.md lists every fault, as the table has it", () => {
  const lines = readFileSync(DOCS, "utf8").split("\n");
  const listed = lines.filter((line) => /^\| `[a-z0-9-]+` +\| \w+ +\| [a-z, ]+ \|/.test(line));
  const tidy = (line: string) => line.replace(/ +\|/g, " |");
  expect(listed.map(tidy)).toEqual(Object.keys(FAULTS).map((name) => rowOf(name as FaultAction)));
});

test("a fault's words are known, and no name is the start of none", () => {
  for (const name of Object.keys(FAULTS) as FaultAction[]) {
    for (const word of wordsOf(name)) expect(word, name).toMatch(/^[a-z][A-Za-z]+$/);
    const needed = { latency: "=5", rate: "=5" }[name as string] ?? "";
    expect(parseFaultText(`${name}${needed}`).action).toBe(name);
  }
});
