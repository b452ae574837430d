/** What was acknowledged is there after a restart and after kill -9 at any moment. */
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, readdirSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { type EBSClient, ListSnapshotBlocksCommand } from "@aws-sdk/client-ebs";
import { expect, onTestFinished, test } from "vitest";
import { BLOCK_SIZE } from "../../src/common/sizes.js";
import { startEndpoint } from "../../src/server/endpoint.js";
import { PendingLayer } from "../../src/server/pending-layer.js";
import {
  blockOf,
  clientOf,
  complete,
  contentOf,
  get,
  put,
  rig,
  sha256,
  snapshotOf,
  start,
  temporaryFolder,
} from "./rig.js";

const ENDPOINT = fileURLToPath(new URL("../../dist/server/endpoint.js", import.meta.url));

async function contents(client: EBSClient, SnapshotId: string): Promise<Map<number, number>> {
  const { Blocks } = await client.send(new ListSnapshotBlocksCommand({ SnapshotId }));
  const seen = new Map<number, number>();
  for (const { BlockIndex, BlockToken } of Blocks!) {
    seen.set(BlockIndex!, contentOf(await get(client, SnapshotId, BlockIndex!, BlockToken!)));
  }
  return seen;
}

test("a restart keeps snapshots, tokens, client tokens and pending blocks", async () => {
  const store = temporaryFolder();
  const first = await startEndpoint({ store });
  const before = clientOf(first.url);
  const done = await snapshotOf(before, { 3: 1 }, { ClientToken: "a" });
  const { Blocks } = await before.send(new ListSnapshotBlocksCommand({ SnapshotId: done }));
  const pending = await start(before, { ParentSnapshotId: done });
  for (const content of [5, 6]) await put(before, pending, 4, blockOf(content));
  const synthetic = first.createSynthetic({ volumeSizeGiB: 1, written: 1, seed: 1 });
  await expect(startEndpoint({ store })).rejects.toThrow(/Another endpoint is using/);
  await first.close();

  const { client, endpoint } = await rig({ store });
  expect(contentOf(await get(client, done, 3, Blocks![0]!.BlockToken!))).toBe(1);
  expect(await start(client, { ClientToken: "a" })).toBe(done);
  await put(client, pending, 9, blockOf(7));
  await complete(client, pending, 2);
  expect([...(await contents(client, pending))]).toEqual([
    [3, 1],
    [4, 6],
    [9, 7],
  ]);
  expect(endpoint.stats().snapshots.map((one) => one.snapshotId)).toContain(synthetic);
});

async function spawnEndpoint(store: string): Promise<{ url: string; child: ChildProcess }> {
  const script = `import { startEndpoint } from ${JSON.stringify(ENDPOINT)};
    console.log((await startEndpoint({ store: ${JSON.stringify(store)} })).url);`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", script], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  onTestFinished(() => void child.kill("SIGKILL"));
  for await (const url of createInterface({ input: child.stdout! })) return { url, child };
  throw new Error("the endpoint did not start");
}

test.skipIf(!existsSync(ENDPOINT))("kill -9 loses no acknowledged block", async () => {
  const store = temporaryFolder();
  let { url, child } = await spawnEndpoint(store);
  const SnapshotId = await start(clientOf(url));
  const acknowledged = new Map<number, number>();
  const sent = new Map<number, Set<number>>();
  let version = 0;
  for (const target of [1, 17, 40, 66]) {
    const client = clientOf(url);
    const gone = new Promise((resolve) => child.once("exit", resolve));
    let acks = 0;
    // Each writer has blocks of its own, so that the last acknowledged version is known.
    const write = async (writer: number) => {
      for (let i = 0; child.exitCode === null && child.signalCode === null; i++) {
        const index = writer + 6 * (i % 5);
        const content = ++version;
        if (!sent.has(index)) sent.set(index, new Set());
        sent.get(index)!.add(content);
        await put(client, SnapshotId, index, blockOf(content));
        acknowledged.set(index, content);
        if (++acks === target) child.kill("SIGKILL");
      }
    };
    await Promise.allSettled([0, 1, 2, 3, 4, 5].map(write));
    await gone;
    ({ url, child } = await spawnEndpoint(store));
  }
  const client = clientOf(url);
  // A put that was not acknowledged may have been stored all the same.
  let counted = false;
  for (let count = acknowledged.size; !counted; count++) {
    counted = await complete(client, SnapshotId, count).then(
      () => true,
      () => count > 30,
    );
  }
  const seen = await contents(client, SnapshotId);
  expect(acknowledged.size).toBeGreaterThan(0);
  for (const [index, content] of acknowledged) {
    expect(sent.get(index)).toContain(seen.get(index));
    expect(seen.get(index)).toBeGreaterThanOrEqual(content);
  }
});

test("of two puts of a block the one that arrived later wins; its slot is used again", async () => {
  const folder = temporaryFolder();
  const layer = new PendingLayer(folder, true);
  const write = (index: number, content: number, arrival: number) =>
    layer.put(index, [blockOf(content)], sha256(blockOf(content)), arrival);
  await write(1, 20, 2);
  await write(1, 10, 1);
  await Promise.all([write(2, 40, 4), write(2, 30, 3)]);
  for (let i = 5; i < 30; i++) await write(3, i, i);
  const linear = [20, 40, 29].map((content) => sha256(blockOf(content)));
  const aggregate = sha256(Buffer.concat(linear)).toString("base64");
  expect(layer.aggregate()).toBe(aggregate);
  layer.seal();
  await expect(write(4, 1, 99)).rejects.toMatchObject({ name: "ValidationException" });
  expect(statSync(join(folder, "blocks.data")).size).toBeLessThanOrEqual(5 * BLOCK_SIZE);
  const again = new PendingLayer(folder, false);
  expect(again.aggregate()).toBe(aggregate);
  expect(again.blockCount).toBe(3);
  again.seal();
});

test("a folder that is no store, or of another format, is refused with a sentence", async () => {
  const file = join(temporaryFolder(), "file");
  writeFileSync(file, "");
  await expect(startEndpoint({ store: file })).rejects.toThrow(/cannot be used/);
  const store = temporaryFolder();
  const endpoint = await startEndpoint({ store });
  const { port } = new URL(endpoint.url);
  const taken = startEndpoint({ store: temporaryFolder(), port: Number(port) });
  await expect(taken).rejects.toThrow(/another program is using it/);
  await endpoint.close();
  writeFileSync(join(store, "store.json"), '{"format":99}');
  await expect(startEndpoint({ store })).rejects.toThrow(/format that this version cannot read/);
});

test("many snapshots are read through few open files", async () => {
  const { client } = await rig({ maxPending: 1000 });
  const ids: string[] = [];
  let parent: string | undefined;
  for (let i = 0; i < 150; i++) {
    parent = await snapshotOf(client, { [i]: i }, { ParentSnapshotId: parent });
    ids.push(parent);
  }
  const open = () => readdirSync("/proc/self/fd").length;
  const before = open();
  const seen = await contents(client, ids.at(-1)!);
  expect([...seen.values()]).toEqual(ids.map((_, i) => i));
  expect(open() - before).toBeLessThan(140);
});
