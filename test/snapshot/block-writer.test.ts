/** Blocks written into an image: a sync that fails beside the work is never lost. */
import type { FileHandle } from "node:fs/promises";
import { expect, test } from "vitest";
import { BLOCK_SIZE } from "../../src/common/sizes.js";
import { BlockWriter } from "../../src/snapshot/block-writer.js";

const BLOCK = Buffer.alloc(BLOCK_SIZE, 7);
/** Blocks at which the writer syncs by itself. */
const SYNC_AFTER = 128;

/** A file that takes everything, at most `most` bytes a write, and syncs when told. */
function fakeFile(most = BLOCK_SIZE) {
  const written: number[] = [];
  const syncs: { resolve: () => void; reject: (error: Error) => void }[] = [];
  const file = {
    async write(_data: Uint8Array, _at: number, length: number, position: number) {
      written.push(position);
      return { bytesWritten: Math.min(length, most) };
    },
    datasync: () =>
      new Promise<void>((resolve, reject) => {
        syncs.push({ resolve, reject });
      }),
  };
  return { file: file as unknown as FileHandle, written, syncs };
}

test("writes whole blocks at their place, however little goes at a time", async () => {
  const { file, written } = fakeFile(BLOCK_SIZE / 4);
  await new BlockWriter(file, "disk.img").write(3, BLOCK);
  expect(written).toEqual([3, 3.25, 3.5, 3.75].map((at) => at * BLOCK_SIZE));
});

test("syncs beside the work, one at a time, and tells at the next write that it failed", async () => {
  const { file, syncs } = fakeFile();
  const writer = new BlockWriter(file, "disk.img");
  for (let i = 0; i < 3 * SYNC_AFTER; i += 1) await writer.write(i, BLOCK);
  expect(syncs).toHaveLength(1);
  syncs[0]!.reject(Object.assign(new Error("the disk is broken"), { code: "EIO" }));
  await expect(async () => {
    for (let i = 0; i < 3; i += 1) await writer.write(i, BLOCK);
  }).rejects.toThrow(/disk\.img cannot be written \(the disk is broken\)/);
});

test("a sync waits for one that runs, and for its own", async () => {
  const { file, syncs } = fakeFile();
  const writer = new BlockWriter(file, "disk.img");
  for (let i = 0; i < SYNC_AFTER; i += 1) await writer.write(i, BLOCK);
  let done = false;
  const synced = writer.sync().then(() => {
    done = true;
  });
  syncs[0]!.resolve();
  await expect.poll(() => syncs.length).toBe(2);
  expect(done).toBe(false);
  syncs[1]!.resolve();
  await synced;
});

test("a sync that failed fails every later one, although the kernel tells it once", async () => {
  const { file, syncs } = fakeFile();
  const writer = new BlockWriter(file, "disk.img");
  for (let i = 0; i < SYNC_AFTER; i += 1) await writer.write(i, BLOCK);
  const first = writer.sync();
  syncs[0]!.reject(new Error("lost"));
  await expect.poll(() => syncs.length).toBe(2);
  syncs[1]!.resolve();
  await expect(first).rejects.toThrow(/lost/);
  const second = writer.sync();
  await expect.poll(() => syncs.length).toBe(3);
  syncs[2]!.resolve();
  await expect(second).rejects.toThrow(/lost/);
});
