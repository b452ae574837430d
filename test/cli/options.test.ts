import { Command, CommanderError } from "commander";
import { describe, expect, test } from "vitest";
import {
  countParser,
  durationParser,
  parseBandwidth,
  parseTag,
  type ServiceOptions,
  serviceOptions,
  sizeParser,
} from "../../src/cli/options.js";

function parse(args: string[], env: Record<string, string> = {}): ServiceOptions {
  const before = { ...process.env };
  Object.assign(process.env, env);
  try {
    const command = serviceOptions(new Command("x"))
      .exitOverride()
      .configureOutput({ writeErr: () => {} });
    command.parse(args, { from: "user" });
    return command.opts();
  } finally {
    for (const name of Object.keys(env)) delete process.env[name];
    Object.assign(process.env, before);
  }
}

describe("service options", () => {
  test("have defaults, take the environment, and let the command line win", () => {
    expect(parse([])).toMatchObject({ concurrency: 64, ioTimeout: 60_000, logLevel: "info" });
    const env = { EBSMOUNT_CONCURRENCY: "5", EBSMOUNT_IO_TIMEOUT: "2m", EBSMOUNT_REGION: "eu-x-1" };
    expect(parse([], env)).toMatchObject({ concurrency: 5, ioTimeout: 120_000, region: "eu-x-1" });
    expect(parse(["--concurrency", "7"], env)).toMatchObject({ concurrency: 7, region: "eu-x-1" });
  });

  test.each([
    [["--concurrency", "0"]],
    [["--concurrency", "many"]],
    [["--io-timeout", "fast"]],
    [["--endpoint-url", "ftp://x"]],
    [["--log-level", "loud"]],
  ])("refuse %j", (args) => {
    expect(() => parse(args)).toThrow(CommanderError);
  });
});

test("sizes, counts, times and tags are read as people write them", () => {
  expect(sizeParser("--x", 1)("1.5GiB")).toBe(1.5 * 2 ** 30);
  expect(() => sizeParser("--x", 1024)("1000")).toThrow(/at least 1 KiB/);
  expect(countParser("--x", 1, 8)(" 8 ")).toBe(8);
  expect(durationParser("--x", 0, 1e9)("1.5m")).toBe(90_000);
  expect(durationParser("--x", 0, 1e9, "m")("2")).toBe(120_000);
  expect(() => durationParser("--x", 60_000, 1e9)("1s")).toThrow(/1m to/);
  expect(parseTag("a=b=c")).toEqual({ key: "a", value: "b=c" });
  expect(() => parseTag("novalue")).toThrow(/KEY=VALUE/);
});

test.each([
  ["20Mbit/s", 2_500_000],
  ["0.5 mbps", 62_500],
  ["4 Mbit", 500_000],
  ["1Gbit/s", 125_000_000],
  ["2MiB/s", 2 * 1024 * 1024],
  ["500KiB", 500 * 1024],
  ["500kb/s", 500 * 1024],
  ["20", undefined],
  ["fast", undefined],
  ["8kbit/s", undefined],
])("a bandwidth: %s", (text, bytes) => {
  if (bytes === undefined) expect(() => parseBandwidth(text)).toThrow(/rate|at least/);
  else expect(parseBandwidth(text)).toBe(bytes);
});
