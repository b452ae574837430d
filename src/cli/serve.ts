/**
 * `ebsmount serve`: the local endpoint in a process of its own, until SIGINT or SIGTERM. The first
 * line on standard output says where it listens, so scripts need not guess; the endpoint's code is
 * loaded only when the command runs.
 */
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { type Command, InvalidArgumentError, Option } from "commander";
import { Failure } from "../common/failure.js";
import type { Credentials } from "../server/signature.js";
import { interruptible, UsageFailure } from "./errors.js";

interface ServeOptions {
  readonly store: string;
  readonly port: number;
  readonly host: string;
  readonly likeAws: boolean;
  readonly fault: readonly string[];
  readonly faults?: string;
  readonly synthetic: readonly string[];
  readonly accessKeyId?: string;
  readonly secretAccessKey?: string;
  readonly sessionToken?: string;
  readonly completionDelay?: number;
  readonly blockTokenLife: number;
  readonly pageTokenLife: number;
  readonly timeoutMinute: number;
  readonly maxPending?: number;
  readonly sync: boolean;
}

const collect = (value: string, before: readonly string[]): string[] => [...before, value];

/** Largest number taken; as seconds, 30 years. */
const MOST = 1e9;

function amount(text: string): number {
  const value = Number(text);
  if (text.trim() !== "" && value >= 0 && value <= MOST) return value;
  throw new InvalidArgumentError(`It must be a number, 0 to ${MOST}.`);
}

function folder(text: string): string {
  if (text.trim() !== "") return text;
  throw new InvalidArgumentError("It is empty: name a folder.");
}

function portNumber(text: string): number {
  const value = amount(text);
  if (Number.isInteger(value) && value < 65_536) return value;
  throw new InvalidArgumentError("It must be a port number, 0 to 65535.");
}

export function registerServe(program: Command): void {
  program
    .command("serve")
    .summary("serve the EBS direct APIs from a local folder")
    .description(
      "Serves the EBS direct APIs from a local folder, for trying, tests and CI, and prints its URL.",
    )
    .requiredOption("--store <dir>", "folder that holds the snapshots; made if missing", folder)
    .option("--port <n>", "port to listen on; 0: any free one", portNumber, 0)
    .option("--host <address>", "address to listen on", "127.0.0.1")
    .option(
      "--like-aws",
      "with the real service's habits: late, throttled, eventually consistent",
      false,
    )
    .option(
      "--fault <name>",
      "a fault to order, e.g. eventual-start or unreadable=3,blocks=0-99 (repeatable); docs/endpoint.md lists them",
      collect,
      [],
    )
    .option("--faults <file>", "JSON file of faults to order")
    .option(
      "--synthetic <spec>",
      "serve a computed snapshot, e.g. size=64TiB,written=all,seed=1 (repeatable)",
      collect,
      [],
    )
    .addOption(
      new Option("--access-key-id <id>", "check signatures against this key").env(
        "EBSMOUNT_ACCESS_KEY_ID",
      ),
    )
    .addOption(
      new Option("--secret-access-key <key>", "its secret; other users see a command line").env(
        "EBSMOUNT_SECRET_ACCESS_KEY",
      ),
    )
    .addOption(
      new Option("--session-token <token>", "their session token, if they are temporary").env(
        "EBSMOUNT_SESSION_TOKEN",
      ),
    )
    .option(
      "--completion-delay <s>",
      "seconds that a completed snapshot stays pending; 0: completed at once; default: pending once",
      amount,
    )
    .option("--block-token-life <s>", "seconds that block tokens live", amount, 7 * 24 * 3600)
    .option("--page-token-life <s>", "seconds that page tokens live", amount, 3600)
    .option("--timeout-minute <s>", "seconds in a minute of a snapshot's Timeout", amount, 60)
    .option("--max-pending <n>", "snapshots that may be pending at a time (default: 100)", amount)
    .option("--sync", "acknowledge only what is on the disk", false)
    .action(serve);
}

async function serve(options: ServeOptions): Promise<void> {
  const { startEndpoint } = await import("../server/endpoint.js");
  const { parseFaultRules } = await import("../server/fault-rule.js");
  const { parseFaultText } = await import("../server/fault-text.js");
  const { parseSyntheticText } = await import("../server/synthetic-spec.js");
  const specs = wellAsked(() => options.synthetic.map(parseSyntheticText));
  const faults = wellAsked(() => [
    ...options.fault.map(parseFaultText),
    ...(options.faults === undefined ? [] : parseFaultRules(readJson(options.faults))),
  ]);
  const credentials = credentialsOf(options);
  await interruptible(async (signal) => {
    const endpoint = await startEndpoint({
      store: options.store,
      port: options.port,
      host: options.host,
      ...(credentials === undefined ? {} : { credentials }),
      faults,
      likeAws: options.likeAws,
      sync: options.sync,
      ...(options.completionDelay !== undefined && {
        completionDelayMs: options.completionDelay * 1000,
      }),
      blockTokenLifeMs: options.blockTokenLife * 1000,
      pageTokenLifeMs: options.pageTokenLife * 1000,
      minuteMs: options.timeoutMinute * 1000,
      ...(options.maxPending !== undefined && { maxPending: options.maxPending }),
    });
    try {
      const synthetic = specs.map((spec) => endpoint.createSynthetic(spec));
      console.log(`Listening on ${endpoint.url}`);
      for (const snapshotId of synthetic) console.log(`Synthetic snapshot ${snapshotId}`);
      if (credentials === undefined && !/^(127\.|::1$|localhost$)/.test(options.host)) {
        console.error(
          `Whoever can reach ${options.host} can read and write the store: --access-key-id and --secret-access-key close it to others.`,
        );
      }
      if (!signal.aborted) await once(signal, "abort");
    } finally {
      await endpoint.close();
    }
  });
}

/** What is wrong with the command line itself is a usage error. */
function wellAsked<T>(read: () => T): T {
  try {
    return read();
  } catch (error) {
    throw error instanceof Failure ? new UsageFailure(error.message) : error;
  }
}

function credentialsOf(options: ServeOptions): Credentials | undefined {
  const { accessKeyId, secretAccessKey, sessionToken } = options;
  const given = [accessKeyId, secretAccessKey, sessionToken].some((one) => one !== undefined);
  if (!given) return undefined;
  if (accessKeyId !== undefined && secretAccessKey !== undefined) {
    return { accessKeyId, secretAccessKey, ...(sessionToken !== undefined && { sessionToken }) };
  }
  throw new UsageFailure(
    "Checking signatures needs both an access key id and its secret access key; one is missing.",
  );
}

function readJson(path: string): unknown {
  try {
    return JSON.parse(readFileSync(path, "utf8"));
  } catch (cause) {
    throw new Failure("EINVAL", `Cannot read JSON from ${path}: ${(cause as Error).message}.`, {
      cause,
    });
  }
}
