/** docs/endpoint.md lists the faults, and the habits of --like-aws, as the code has them. */
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { OPERATIONS } from "../../src/server/call.js";
import { wordsOf } from "../../src/server/fault-rule.js";
import { FAULTS, type FaultAction } from "../../src/server/fault-table.js";
import { parseFaultText, valueWord } from "../../src/server/fault-text.js";
import { LIKE_AWS } from "../../src/server/like-aws.js";
import { ServiceError } from "../../src/server/service-error.js";

const LINES = readFileSync(new URL("../../docs/endpoint.md", import.meta.url), "utf8").split("\n");
const tidy = (line: string) => line.replace(/ +\|/g, " |");

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
  const listed = LINES.filter((line) => /^\| `[a-z0-9-]+` +\| \w+ +\| [a-z, ]+ \|/.test(line));
  expect(listed.map(tidy)).toEqual(Object.keys(FAULTS).map((name) => rowOf(name as FaultAction)));
});

test("a fault's words are known, and no name is the start of none", () => {
  for (const name of Object.keys(FAULTS) as FaultAction[]) {
    for (const word of wordsOf(name)) expect(word, name).toMatch(/^[a-z][A-Za-z]+$/);
    const needed = { latency: "=5", rate: "=5" }[name as string] ?? "";
    expect(parseFaultText(`${name}${needed}`).action).toBe(name);
  }
});

test("docs/endpoint.md has the numbers of --like-aws", () => {
  const rows = OPERATIONS.map((operation) => {
    const rules = LIKE_AWS.habits.filter(({ operations }) => operations?.includes(operation));
    const { ms = 0, jitterMs = 0 } = rules.find(({ action }) => action === "latency") ?? {};
    const rate = (isOfSnapshot: boolean) =>
      rules.find(({ action, perSnapshot = false }) => {
        return action === "rate" && perSnapshot === isOfSnapshot;
      })?.perSecond ?? "";
    return `| ${operation} | ${ms} to ${ms + jitterMs} ms | ${rate(false)} | ${rate(true)} |`;
  });
  const listed = LINES.filter((line) => /^\| [A-Z]\w+ +\| \d+ to/.test(line)).map(tidy);
  expect(listed).toEqual(rows.map(tidy));
  const text = LINES.join(" ");
  const seconds = (value: number | undefined) => `${(value ?? 0) / 1000} s after`;
  expect(text).toContain(`\`pending\` for ${seconds(LIKE_AWS.completionDelayMs)}`);
  const [start, complete] = LIKE_AWS.habits.filter(({ action }) => /^eventual/.test(action));
  expect(text).toContain(`For ${seconds(start?.ms)} StartSnapshot half`);
  expect(text).toContain(`for ${seconds(complete?.ms)} its completion half`);
  expect(text).toContain(`More than ${LIKE_AWS.maxPending} pending`);
});
