/** The reader of configuration files against Python's, which the AWS CLI uses, over many odd texts. */
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import fc from "fast-check";
import { expect, test } from "vitest";
import { IniError, nestedValues, parseIni, shellWords } from "../../src/aws/ini.js";

const PYTHON = "/usr/bin/python3";
const hasPython = existsSync(PYTHON);

function askPython(program: string, texts: readonly string[]): unknown[] {
  const { stdout, stderr, status } = spawnSync(PYTHON, ["-c", program], {
    input: JSON.stringify(texts),
    encoding: "utf8",
    maxBuffer: 64 * 1024 * 1024,
  });
  if (status !== 0) throw new Error(stderr);
  return JSON.parse(stdout) as unknown[];
}

const CONFIGPARSER = `
import configparser, io, json, sys
results = []
for text in json.load(sys.stdin):
    cp = configparser.RawConfigParser()
    try:
        # As a file is read: with universal newlines.
        cp.read_file(io.StringIO(text.replace("\\r\\n", "\\n").replace("\\r", "\\n")))
        results.append({s: dict(cp.items(s)) for s in cp.sections()})
    except configparser.Error:
        results.append(None)
print(json.dumps(results))
`;

const SHLEX = `
import json, shlex, sys
results = []
for text in json.load(sys.stdin):
    try:
        results.append(shlex.split(text))
    except ValueError:
        results.append(None)
print(json.dumps(results))
`;

const line = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.constantFrom("[a]", "[b c]", '[profile "x y"]', "[DEFAULT]", "[[d]]"),
  },
  {
    weight: 12,
    arbitrary: fc
      .tuple(
        fc.constantFrom("", " ", "  ", "\t"),
        fc.constantFrom("k", "K", "key two", "endpoint_url", "#k", ";", "x#y", ""),
        fc.constantFrom("=", " = ", ":", " : ", "", "=="),
        fc.constantFrom("", "v", "a b", "a # b", "a ; b", "http://h:1/x?y=z", "[v]", '"q"'),
        fc.constantFrom("", " ", "\t"),
      )
      .map((parts) => parts.join("")),
  },
  { weight: 3, arbitrary: fc.constantFrom("", " ", "\t") },
  { weight: 1, arbitrary: fc.string({ unit: "binary", maxLength: 12 }) },
);
const ending = fc.constantFrom("\n", "\r\n", "\n\n");
const text = fc
  .array(fc.tuple(line, ending), { maxLength: 14 })
  .map((lines) => lines.flat().join(""));

test.skipIf(!hasPython)("files are read as Python reads them", () => {
  const texts = fc.sample(text, { numRuns: 4_000, seed: 20261126 });
  const theirs = askPython(CONFIGPARSER, texts);
  let understood = 0;
  texts.forEach((one, index) => {
    let ours: Record<string, Record<string, string>> | null = null;
    try {
      ours = Object.fromEntries(
        parseIni(one).map(({ name, values }) => [name, Object.fromEntries(values)]),
      );
      understood += 1;
    } catch (error) {
      expect(error).toBeInstanceOf(IniError);
    }
    expect({ one, result: ours }).toEqual({ one, result: theirs[index] });
  });
  // The texts are of both kinds.
  expect(understood).toBeGreaterThan(500);
  expect(understood).toBeLessThan(3_500);
});

test.skipIf(!hasPython)("section names are split as a shell splits them", () => {
  const part = fc.constantFrom("profile", " ", "x", '"', "'", "\\", "\t", "é", "-", '""', "$x");
  const names = fc
    .sample(fc.array(part, { maxLength: 10 }), { numRuns: 4_000, seed: 20261126 })
    .map((parts) => parts.join(""));
  const theirs = askPython(SHLEX, names);
  names.forEach((name, index) => {
    expect({ name, words: shellWords(name) ?? null }).toEqual({ name, words: theirs[index] });
  });
});

test("nested values, and an error that names the line without its text", () => {
  const [section] = parseIni(
    "[services s]\nebs =\n  endpoint_url = http://h/?a=b\n  x=\ns3 = no\n",
  );
  expect(section?.values.get("ebs")).toBe("\nendpoint_url = http://h/?a=b\nx=");
  expect([...nestedValues(section?.values.get("ebs"))]).toEqual([
    ["endpoint_url", "http://h/?a=b"],
    ["x", ""],
  ]);
  expect([...nestedValues(section?.values.get("s3"))]).toEqual([]);
  expect(() => parseIni("[a]\nsecret\n")).toThrow("is neither a [section] nor a NAME = VALUE");
});

test("a long file is read in a moment", () => {
  const many = Array.from({ length: 20_000 }, (_, i) => `[p${i}]\nregion = eu-west-1\n\n`).join("");
  const begin = performance.now();
  expect(parseIni(many)).toHaveLength(20_000);
  expect(parseIni(`[a]\nk = v\n${"  more\n\n".repeat(20_000)}`)).toHaveLength(1);
  expect(shellWords(`profile ${"\\".repeat(20_001)}`)).toBeUndefined();
  expect(performance.now() - begin).toBeLessThan(5_000);
});
