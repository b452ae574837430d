/**
 * An image in a stream is what it would be in a file, however the stream is cut into pieces and in
 * whatever order its blocks are asked for; a stream that is shorter or longer than it should be, that
 * breaks or stays silent, is an error.
 */
import { createHash } from "node:crypto";
import fc from "fast-check";
import { expect, test } from "vitest";
import { BLOCK_SIZE, MAX_VOLUME_GIB, TIB } from "../../src/common/sizes.js";
import { type ByteReader, StreamSource } from "../../src/snapshot/stream-source.js";
import { noise, pieces } from "../support/pieces.js";

/** What a file of these bytes gives for a block. */
function blockOf(bytes: Uint8Array, size: number, blockIndex: number): Buffer {
  const block = Buffer.alloc(BLOCK_SIZE);
  const start = blockIndex * BLOCK_SIZE;
  block.set(bytes.subarray(start, Math.min(start + BLOCK_SIZE, size)));
  return block;
}

const sha = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");

test("any pieces, any order of reads: the image's blocks, and nothing but an image of that size", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 1, max: 4 * BLOCK_SIZE }),
      fc.oneof(fc.constant(0), fc.integer({ min: -2 * BLOCK_SIZE, max: 2 * BLOCK_SIZE })),
      fc.array(fc.oneof(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 1, max: BLOCK_SIZE }))),
      fc.array(fc.nat(), { minLength: 6, maxLength: 6 }),
      async (size, surplus, sizes, order) => {
        const bytes = noise(Math.max(0, size + surplus));
        const source = new StreamSource("pipe", size, pieces(bytes, sizes));
        const blocks = [...source.blocks("written")];
        expect(blocks).toEqual([...Array(Math.ceil(size / BLOCK_SIZE)).keys()]);
        const asked = [...blocks].sort((a, b) => order[a]! - order[b]!);
        const buffers = blocks.map(() => Buffer.alloc(BLOCK_SIZE, 0xee));
        const failures = new Map<number, unknown>();
        await Promise.all(
          asked.map((block) =>
            source.read(block, buffers[block]!).catch((error) => failures.set(block, error)),
          ),
        );
        for (const block of blocks) {
          const there = Math.min((block + 1) * BLOCK_SIZE, size) <= bytes.length;
          expect(failures.has(block)).toBe(!there);
          if (there) expect(sha(buffers[block]!)).toBe(sha(blockOf(bytes, size, block)));
          else {
            expect(failures.get(block)).toMatchObject({
              errno: "EIO",
              message: expect.stringContaining(`ended after ${bytes.length} of the ${size} bytes`),
            });
          }
        }
        if (bytes.length < size) return;
        const end = source.assertWhole();
        if (bytes.length === size) await end;
        else {
          const message = expect.stringContaining(`goes on after the ${size} bytes`);
          await expect(end).rejects.toMatchObject({ errno: "EFBIG", message });
        }
        await source.close();
      },
    ),
    { numRuns: 100 },
  );
});

/** Gives what there is, then waits for the signal, or breaks. */
function silentAfter(bytes: number, broken?: Error): ByteReader {
  let left = bytes;
  return {
    async read(target, signal) {
      const count = Math.min(left, target.length);
      left -= count;
      if (count > 0) return count;
      if (broken !== undefined) throw broken;
      return await new Promise((_, reject) =>
        signal?.addEventListener("abort", () => reject(new Error("destroyed"))),
      );
    },
    close() {},
  };
}

test.each([
  ["its first byte", 0],
  ["the middle of a block", BLOCK_SIZE + 5],
  ["its end", 3 * BLOCK_SIZE],
])(
  "a stream that is silent before %s is let go by the signal, with all who wait",
  async (_, sent) => {
    const source = new StreamSource("pipe", 3 * BLOCK_SIZE, silentAfter(sent));
    const stop = new AbortController();
    const reads = [2, 0, 1].map((block) =>
      source.read(block, Buffer.alloc(BLOCK_SIZE), stop.signal),
    );
    const end = Promise.allSettled(reads).then(() => source.assertWhole(stop.signal));
    await new Promise((resolve) => setImmediate(resolve));
    const reason = new Error("enough");
    stop.abort(reason);
    await expect(end).rejects.toBe(reason);
    const results = await Promise.allSettled(reads);
    expect(results.filter(({ status }) => status === "fulfilled").length).toBe(
      Math.floor(sent / BLOCK_SIZE),
    );
    for (const result of results)
      if (result.status === "rejected") expect(result.reason).toBe(reason);
  },
);

test("a stream that breaks is an error that says where and why, for all who wait", async () => {
  const reader = silentAfter(BLOCK_SIZE + 5, new Error("reset by peer"));
  const source = new StreamSource("pipe", 3 * BLOCK_SIZE, reader);
  const reads = [0, 1, 2].map((block) => source.read(block, Buffer.alloc(BLOCK_SIZE)));
  await Promise.allSettled(reads);
  await reads[0];
  const message = `pipe cannot be read after byte ${BLOCK_SIZE + 5} (reset by peer).`;
  for (const read of reads.slice(1)) {
    await expect(read).rejects.toMatchObject({ errno: "EIO", message });
  }
});

test("a size that no image has is refused", () => {
  const open = (size: number) => () => new StreamSource("pipe", size, silentAfter(0));
  expect(open(0)).toThrow(/is empty/);
  expect(open(64 * TIB)).not.toThrow();
  expect(open(64 * TIB + 1)).toThrow(/larger than a volume can be \(64 TiB\)/);
  expect(open(64 * TIB)().volumeSizeGiB).toBe(MAX_VOLUME_GIB);
});
