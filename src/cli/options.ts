/**
 * Options that several commands share, and parsers that turn what people type into numbers, with a
 * sentence for what they cannot read. Each option can come from an environment variable too; what is
 * typed wins over the environment, that over the default (commander does this). Loaded for every
 * `--help`, so it imports nothing heavy.
 */
import { type Command, InvalidArgumentError, Option } from "commander";
import { endpointUrlProblem } from "../aws/endpoint-url.js";
import { formatSize, parseSize } from "../common/sizes.js";
import { parseSnapshotId, type SnapshotId } from "../ebs/snapshot-id.js";
import { UsageFailure } from "./errors.js";

export const LOG_LEVELS = ["silent", "error", "warn", "info", "debug"] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

/** What serviceOptions puts into a command's options. */
export interface ServiceOptions {
  readonly region?: string;
  readonly profile?: string;
  readonly endpointUrl?: string;
  /** Requests at one time, 1 to 1024. */
  readonly concurrency: number;
  /** Milliseconds that one operation may take since a byte of it moved, all its retries included. */
  readonly ioTimeout: number;
  /** Bytes a second of blocks, in both directions together. */
  readonly bandwidthLimit?: number;
  /** Gets, and puts, a second and snapshot. */
  readonly maxRequestsPerSecond?: number;
  /** The endpoint has responded to an earlier command: a refused connection is worth waiting for. */
  readonly isProven?: boolean;
  /** USD, and requests: no more is spent. */
  readonly maxCost?: number;
  readonly maxRequests?: number;
  readonly logLevel: LogLevel;
}

/** Default of --io-timeout, ms: outlasts a fail-over, and is still a wait that a person sits out. */
const DEFAULT_IO_TIMEOUT = 60_000;
const DEFAULT_CONCURRENCY = 64;
/** More than the largest volume takes, many times. */
const MAX_MAX_REQUESTS = 1_000_000_000_000;
const MAX_MAX_COST_USD = 1_000_000;

/** Adds the options of every command that reaches the service; see ServiceOptions. */
export function serviceOptions(command: Command, defaultLogLevel: LogLevel = "info"): Command {
  return command
    .addOption(
      new Option("--region <region>", "AWS region (default: the AWS configuration's)")
        .env("EBSMOUNT_REGION")
        .argParser(parseName),
    )
    .addOption(
      new Option("--profile <profile>", "profile of the AWS configuration")
        .env("EBSMOUNT_PROFILE")
        .argParser(parseName),
    )
    .addOption(
      new Option("--endpoint-url <url>", "another endpoint, such as that of ebsmount serve")
        .env("EBSMOUNT_ENDPOINT_URL")
        .argParser(parseUrl),
    )
    .addOption(
      new Option("--concurrency <count>", "requests at one time")
        .env("EBSMOUNT_CONCURRENCY")
        .argParser(countParser("--concurrency", 1, 1024))
        .default(DEFAULT_CONCURRENCY),
    )
    .addOption(
      new Option("--io-timeout <time>", "how long to try one request, with all retries: 30s, 2m")
        .env("EBSMOUNT_IO_TIMEOUT")
        .argParser(durationParser("--io-timeout", 1000, 24 * 3600_000))
        .default(DEFAULT_IO_TIMEOUT, "60s"),
    )
    .addOption(
      new Option(
        "--bandwidth-limit <rate>",
        "most that blocks may take of a shared line, both ways together: 500KiB/s, 20Mbit/s (default: none)",
      )
        .env("EBSMOUNT_BANDWIDTH_LIMIT")
        .argParser(parseBandwidth),
    )
    .addOption(
      new Option(
        "--max-requests-per-second <count>",
        "gets, and puts, of blocks a second and snapshot (default: 1000 at AWS, its quota; none elsewhere)",
      )
        .env("EBSMOUNT_MAX_REQUESTS_PER_SECOND")
        .argParser(countParser("--max-requests-per-second", 1, 1_000_000)),
    )
    .addOption(
      new Option("--max-cost <usd>", "stop before the requests cost more, by list prices: 0.50")
        .env("EBSMOUNT_MAX_COST")
        .argParser(parseUsd),
    )
    .addOption(
      new Option("--max-requests <count>", "stop before more requests are sent")
        .env("EBSMOUNT_MAX_REQUESTS")
        .argParser(countParser("--max-requests", 1, MAX_MAX_REQUESTS)),
    )
    .addOption(
      new Option("--log-level <level>", "how much to log")
        .env("EBSMOUNT_LOG_LEVEL")
        .choices(LOG_LEVELS)
        .default(defaultLogLevel),
    );
}

/** --state-dir, for every command that keeps or finds something there. */
export function stateDirOption(): Option {
  return new Option(
    "--state-dir <folder>",
    "where records and sessions are kept (default: $XDG_STATE_HOME/ebsmount or ~/.local/state/ebsmount)",
  )
    .env("EBSMOUNT_STATE_DIR")
    .argParser(parseName);
}

/** Parser for an option that may be given several times. */
export function collect(value: string, previous: readonly string[] | undefined): string[] {
  return [...(previous ?? []), value];
}

/** @param minimum bytes. The parser gives bytes. */
export function sizeParser(name: string, minimum: number): (text: string) => number {
  return (text) => {
    const bytes = parseSize(text);
    if (bytes === undefined) {
      throw new InvalidArgumentError(`"${text}" is not a size: write 512MiB, 64M or 1.5G.`);
    }
    if (bytes < minimum) {
      throw new InvalidArgumentError(`${name} is at least ${formatSize(minimum)}.`);
    }
    return bytes;
  };
}

export function countParser(
  name: string,
  minimum: number,
  maximum: number,
): (text: string) => number {
  return (text) => {
    const value = /^\s*\d+\s*$/.test(text) ? Number(text) : Number.NaN;
    if (!(value >= minimum && value <= maximum)) {
      throw new InvalidArgumentError(`${name} is a whole number, ${minimum} to ${maximum}.`);
    }
    return value;
  };
}

const MIN_BYTES_PER_SECOND = 32 * 1024;

/** @returns USD. */
function parseUsd(text: string): number {
  const match = /^\s*\$?(\d{1,9}(?:\.\d{1,9})?)\s*$/.exec(text);
  const usd = match === null ? Number.NaN : Number(match[1]);
  if (usd > 0 && usd <= MAX_MAX_COST_USD) return usd;
  throw new InvalidArgumentError(
    `"${text}" is not an amount above 0 in US dollars: write 0.50 or 12.`,
  );
}

const DURATION_UNITS: Readonly<Record<string, number>> = {
  ms: 1,
  s: 1000,
  m: 60_000,
  min: 60_000,
  h: 3600_000,
  d: 24 * 3600_000,
};

/** Milliseconds in `30s`, `1.5m`, `2h`; a bare number counts in `unit`. undefined where it is none. */
function parseDuration(text: string, unit: "s" | "m" = "s"): number | undefined {
  const match = /^\s*(\d+(?:\.\d+)?)\s*(ms|s|m|min|h|d)?\s*$/i.exec(text);
  if (match === null) return undefined;
  const factor = DURATION_UNITS[(match[2] ?? unit).toLowerCase()];
  return factor === undefined ? undefined : Math.round(Number(match[1]) * factor);
}

/** @param minimum, maximum milliseconds, both allowed. The parser gives milliseconds. */
export function durationParser(
  name: string,
  minimum: number,
  maximum: number,
  unit: "s" | "m" = "s",
): (text: string) => number {
  return (text) => {
    const value = parseDuration(text, unit);
    if (value === undefined) {
      throw new InvalidArgumentError(`"${text}" is not a time: write 30s, 2m or 1h.`);
    }
    if (value < minimum || value > maximum) {
      const [from, to] = [formatDuration(minimum), formatDuration(maximum)];
      throw new InvalidArgumentError(`${name} is ${from} to ${to}.`);
    }
    return value;
  };
}

/** `30s`, `10m`, `72h`, for sentences. */
function formatDuration(milliseconds: number): string {
  if (milliseconds % 3600_000 === 0) return `${milliseconds / 3600_000}h`;
  if (milliseconds % 60_000 === 0) return `${milliseconds / 60_000}m`;
  return `${milliseconds / 1000}s`;
}

/**
 * Bytes a second in `20Mbit/s`, `500KiB/s`, `2MB/s`. Bits come in thousands, as lines are sold; bytes in
 * 1024s, as everywhere here. The least is one block in 16 s: with less each would meet a time-out.
 */
export function parseBandwidth(text: string): number {
  const bits = /^\s*(\d+(?:\.\d+)?)\s*([kmg]?)(?:bit(?:\/s)?|bps)\s*$/i.exec(text);
  const bytes =
    bits === null
      ? /[a-z]/i.test(text)
        ? parseSize(text.replace(/\s*\/s\s*$/i, ""))
        : undefined
      : (Number(bits[1]) * 1000 ** ["", "k", "m", "g"].indexOf((bits[2] ?? "").toLowerCase())) / 8;
  if (bytes === undefined) {
    throw new InvalidArgumentError(`"${text}" is not a rate: write 20Mbit/s or 2MiB/s.`);
  }
  if (bytes < MIN_BYTES_PER_SECOND) {
    throw new InvalidArgumentError("--bandwidth-limit is at least 32KiB/s.");
  }
  return bytes;
}

/** One tag of a snapshot as `--tag Key=Value`. Source of the limits: StartSnapshot, Tag. */
export function parseTag(text: string): { key: string; value: string } {
  const at = text.indexOf("=");
  const key = at < 0 ? text : text.slice(0, at);
  const value = at < 0 ? "" : text.slice(at + 1);
  if (at < 0 || key.length < 1 || key.length > 127 || value.length > 255) {
    throw new InvalidArgumentError(
      `"${text}" is not a tag: write KEY=VALUE, at most 127 and 255 characters.`,
    );
  }
  return { key, value };
}

/** @throws UsageFailure where it is no snapshot id. */
export function snapshotArgument(text: string): SnapshotId {
  try {
    return parseSnapshotId(text);
  } catch (error) {
    throw new UsageFailure((error as Error).message);
  }
}

/** @throws UsageFailure where it is empty, as a variable that is not set: the current folder is not meant. */
export function mountPointArgument(text: string): string {
  if (text !== "") return text;
  throw new UsageFailure("The mount point is empty: name a directory.");
}

function isGiven(command: Command, name: string): boolean {
  return command.getOptionValueSource(name) === "cli";
}

/** Those of the options that the command line itself gave. */
export function givenOnly<T extends object, K extends keyof T & string>(
  command: Command,
  options: T,
  names: readonly K[],
): Partial<Pick<T, K>> {
  const given: Partial<Pick<T, K>> = {};
  for (const name of names) {
    if (isGiven(command, name)) given[name] = options[name];
  }
  return given;
}

/** @throws UsageFailure for an option that the command line gives and that would not be heeded. */
export function refuseGiven(command: Command, names: readonly string[], why: string): void {
  const given = command.options.find((option) => {
    const name = option.attributeName();
    return names.includes(name) && isGiven(command, name);
  });
  if (given !== undefined) throw new UsageFailure(`${given.long} cannot be used here: ${why}`);
}

/** A name that came out empty, as of a variable that is not set, is no wish for the default. */
export function parseName(text: string): string {
  if (text.trim() !== "") return text;
  throw new InvalidArgumentError("It is empty: leave the option out for the default.");
}

function parseUrl(text: string): string {
  const problem = endpointUrlProblem(text);
  if (problem === undefined) return text;
  throw new InvalidArgumentError(problem);
}
