/** The serve command in a process of its own: what it prints, its signals, its refusals. */
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { ListSnapshotBlocksCommand } from "@aws-sdk/client-ebs";
import { describe, expect, onTestFinished, test } from "vitest";
import { CLI } from "../support/scratch.js";
import { clientOf, start, temporaryFolder } from "./rig.js";

interface Run {
  readonly child: ChildProcess;
  /** Standard output's lines as they come. */
  readonly lines: AsyncIterator<string>;
  readonly exit: Promise<number | null>;
  readonly errors: () => string;
}

function serve(...args: string[]): Run {
  const child = spawn(process.execPath, [CLI, "serve", ...args]);
  onTestFinished(() => void child.kill("SIGKILL"));
  let errors = "";
  child.stderr.on("data", (part: Buffer) => {
    errors += part;
  });
  const exit = new Promise<number | null>((resolve) => child.once("close", resolve));
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  return { child, lines, exit, errors: () => errors };
}

async function urlOf(run: Run): Promise<string> {
  const { value } = (await run.lines.next()) as { value: string };
  expect(value, run.errors()).toMatch(/^Listening on http:\/\/127\.0\.0\.1:\d+$/);
  return value.slice("Listening on ".length);
}

describe.skipIf(!existsSync(CLI))("ebsmount serve (needs npm run build)", () => {
  test("serves until a signal, with the faults and snapshots asked for", async () => {
    const store = temporaryFolder();
    const faults = join(temporaryFolder(), "faults.json");
    writeFileSync(faults, '[{"action":"error","operations":["StartSnapshot"]}]');
    const synthetic = "size=64TiB,written=all,seed=1";
    const fault = "throttle-old-name,operations=ListSnapshotBlocks,skip=1";
    const args = ["--store", store, "--faults", faults, "--fault", fault];
    const run = serve(...args, "--synthetic", synthetic);
    const client = clientOf(await urlOf(run));
    const { value } = (await run.lines.next()) as { value: string };
    const SnapshotId = value.slice("Synthetic snapshot ".length);
    const list = await client.send(new ListSnapshotBlocksCommand({ SnapshotId }));
    expect(list.VolumeSize).toBe(65_536);
    await expect(start(client)).rejects.toMatchObject({ name: "InternalServerException" });
    await expect(client.send(new ListSnapshotBlocksCommand({ SnapshotId }))).rejects.toMatchObject({
      name: "RequestThrottleException",
    });
    run.child.kill("SIGTERM");
    expect(await run.exit).toBe(0);
    const again = serve("--store", store);
    await urlOf(again);
    again.child.kill("SIGINT");
    expect(await again.exit).toBe(0);
  });

  test("refuses with one sentence, and status 1 or, where it was wrongly asked for, 2", async () => {
    const store = temporaryFolder();
    const url = await urlOf(serve("--store", store));
    const refused = async (...args: string[]) => {
      const run = serve(...args);
      return [await run.exit, run.errors().trim()];
    };
    const free = temporaryFolder();
    const port = new URL(url).port;
    expect(await refused("--store", store)).toEqual([
      1,
      expect.stringMatching(/^ebsmount: Another endp.*$/),
    ]);
    expect(await refused("--store", free, "--port", port)).toEqual([
      1,
      expect.stringMatching(/^ebsmount: Cannot listen on 127\.0\.0\.1 port \d+: .*$/),
    ]);
    expect(await refused("--store", free, "--access-key-id", "x")).toEqual([
      2,
      expect.stringMatching(/^ebsmount: Checking signatures needs both.*$/),
    ]);
    expect(await refused("--store", free, "--fault", "unreadable=x")).toEqual([
      2,
      expect.stringMatching(/^ebsmount: A fault rule is wrong: count must be.*$/),
    ]);
    expect(await refused("--store", free, "--faults", "/nowhere")).toEqual([
      2,
      expect.stringMatching(/^ebsmount: Cannot read JSON.*$/),
    ]);
  });
});
