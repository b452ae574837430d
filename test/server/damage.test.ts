/** A folder that was damaged behind the endpoint's back: refused and said so, never fewer blocks. */
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { ListSnapshotBlocksCommand } from "@aws-sdk/client-ebs";
import { expect, test } from "vitest";
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
  until,
} from "./rig.js";

const RECORD = 48;
const blocks = Object.fromEntries(Array.from({ length: 10 }, (_, i) => [i, i]));

/** A store with a completed and a pending snapshot of ten blocks each, at rest. */
async function storeAtRest() {
  const store = temporaryFolder();
  const endpoint = await startEndpoint({ store });
  const client = clientOf(endpoint.url);
  const done = await snapshotOf(client, blocks);
  const child = await snapshotOf(client, { 20: 1 }, { ParentSnapshotId: done });
  const pending = await start(client);
  for (let i = 0; i < 10; i += 1) await put(client, pending, i, blockOf(i));
  await endpoint.close();
  const file = (id: string, name: string) => join(store, "snapshots", id, name);
  return { store, done, child, pending, file };
}

function flipped(bytes: Buffer, at: number): Buffer {
  const copy = Buffer.from(bytes);
  copy[at]! ^= 1;
  return copy;
}

test.each([
  ["a bit of the first record", (log: Buffer) => flipped(log, 3)],
  ["a bit of the last record", (log: Buffer) => flipped(log, 9 * RECORD + 3)],
  ["the end", (log: Buffer) => log.subarray(0, 7 * RECORD)],
  ["all of it", () => Buffer.alloc(0)],
])(
  "an index that lost %s is refused, for its snapshot and for those that inherit",
  async (_, harm) => {
    const { store, done, child, file } = await storeAtRest();
    const path = file(done, "blocks.index");
    writeFileSync(path, harm(readFileSync(path)));
    const said: string[] = [];
    const { client } = await rig({ store, log: (message) => said.push(message) });
    for (const SnapshotId of [done, child]) {
      await expect(
        client.send(new ListSnapshotBlocksCommand({ SnapshotId })),
      ).rejects.toMatchObject({
        name: "InternalServerException",
      });
    }
    expect(said.join()).toContain(done);
  },
);

test("a pending snapshot whose index is damaged in the middle takes no put and loses nothing more", async () => {
  const { store, pending, file } = await storeAtRest();
  const path = file(pending, "blocks.index");
  const harmed = flipped(readFileSync(path), 4 * RECORD);
  writeFileSync(path, harmed);
  const { client } = await rig({ store, log: () => {} });
  await expect(put(client, pending, 20, blockOf(20))).rejects.toMatchObject({
    name: "InternalServerException",
  });
  await expect(complete(client, pending, 4)).rejects.toThrow();
  expect(readFileSync(path).equals(harmed)).toBe(true);
});

test("one bad entry in the folder does not take the other snapshots away", async () => {
  const { store, done, child, file } = await storeAtRest();
  const { snapshots } = { snapshots: join(store, "snapshots") };
  writeFileSync(join(snapshots, ".DS_Store"), "");
  mkdirSync(join(snapshots, "snap-0aaaa"));
  writeFileSync(file("snap-0aaaa", "snapshot.json"), "");
  const said: string[] = [];
  const { client, endpoint } = await rig({ store, log: (message) => said.push(message) });
  expect(said.join()).toMatch(/snap-0aaaa.snapshot\.json cannot be read/);
  const { Blocks } = await client.send(new ListSnapshotBlocksCommand({ SnapshotId: child }));
  expect(Blocks).toHaveLength(11);
  expect(endpoint.stats().snapshots.map((one) => one.snapshotId)).toContain(done);
});

test.each(['{"format":1}', "null", "not JSON"])(
  "a store.json of %s is a sentence",
  async (text) => {
    const { store } = await storeAtRest();
    writeFileSync(join(store, "store.json"), text);
    await expect(startEndpoint({ store })).rejects.toThrow(/store\.json is damaged/);
  },
);

test("a removal that was cut off goes on at the next start", async () => {
  const { store, child, file } = await storeAtRest();
  const record = JSON.parse(readFileSync(file(child, "snapshot.json"), "utf8"));
  writeFileSync(file(child, "snapshot.json"), JSON.stringify({ ...record, removed: true }));
  mkdirSync(join(store, "snapshots", ".gone-snap-1"));
  await rig({ store });
  expect(existsSync(file(child, "blocks.data"))).toBe(false);
  expect(readdirSync(join(store, "snapshots"))).not.toContain(".gone-snap-1");
});

test("removing a snapshot lets go of the files of the ancestors that go with it", async () => {
  const { store, done, child } = await storeAtRest();
  const { client, endpoint } = await rig({ store });
  const { Blocks } = await client.send(new ListSnapshotBlocksCommand({ SnapshotId: child }));
  for (const { BlockIndex, BlockToken } of Blocks!) {
    await get(client, child, BlockIndex!, BlockToken!);
  }
  const open = () =>
    readdirSync("/proc/self/fd").filter((fd) => {
      try {
        return readlinkSync(`/proc/self/fd/${fd}`).includes(done);
      } catch {
        return false;
      }
    });
  expect(open()).not.toEqual([]);
  endpoint.removeSnapshot(done);
  expect(contentOf(await get(client, child, 3, Blocks![3]!.BlockToken!))).toBe(3);
  endpoint.removeSnapshot(child);
  expect(open()).toEqual([]);
  expect(existsSync(join(store, "snapshots", done))).toBe(false);
});

test("a repeated ClientToken finds its snapshot though the parent was removed since", async () => {
  const { client, endpoint } = await rig();
  const parent = await snapshotOf(client, { 0: 1 });
  const input = { ParentSnapshotId: parent, ClientToken: "once" };
  const child = await start(client, input);
  endpoint.removeSnapshot(parent);
  expect(await start(client, input)).toBe(child);
});

test("a put that did not come to be stored leaves no space taken", async () => {
  const folder = join(temporaryFolder(), "snap-1");
  mkdirSync(folder);
  const layer = new PendingLayer(folder, false);
  const block = blockOf(1);
  await layer.put(0, [block], sha256(block), 5);
  // Arrived before the one that is there: it must not undo it.
  await layer.put(0, [blockOf(2)], sha256(blockOf(2)), 4);
  expect(readFileSync(join(folder, "blocks.data")).length).toBe(BLOCK_SIZE);
  await layer.put(7, [block], sha256(block), 6);
  expect(readFileSync(join(folder, "blocks.data")).length).toBe(2 * BLOCK_SIZE);
  layer.seal();
  rmSync(folder, { recursive: true });
});

test("requests whose client left are not in flight for ever", async () => {
  const { client, endpoint } = await rig();
  const id = await snapshotOf(client, { 0: 1 });
  const { Blocks } = await client.send(new ListSnapshotBlocksCommand({ SnapshotId: id }));
  const { hostname, port } = new URL(endpoint.url);
  const path = `/snapshots/${id}/blocks/0?blockToken=${encodeURIComponent(Blocks![0]!.BlockToken!)}`;
  const socket = connect(Number(port), hostname);
  socket.on("error", () => {});
  socket.write(`GET ${path} HTTP/1.1\r\nHost: here\r\n\r\n`.repeat(100));
  await until(() => endpoint.stats().operations.total.inFlight > 10);
  socket.destroy();
  await until(() => endpoint.stats().operations.total.inFlight === 0);
});
