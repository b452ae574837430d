import fc from "fast-check";
import { expect, test } from "vitest";
import { openDirectReader } from "../../src/cache/direct-reader.js";
import { BLOCK_SIZE, BLOCKS_PER_GIB } from "../../src/common/sizes.js";
import { directReads } from "../../src/device/direct-reads.js";
import { createBlockCache, openSnapshotDevice } from "../../src/device/snapshot-device.js";
import { expectedBytes, FakeEbs, type FakeOptions } from "../ebs/fake-ebs.js";

const SNAPSHOT = "snap-0a";

/** A few ticks of the event loop, more or fewer by block, so that fetches end out of order. */
async function someTicks(block: number): Promise<void> {
  for (let i = 0; i < (block * 7) % 5; i += 1) await new Promise((r) => setImmediate(r));
}

async function open(options: FakeOptions, blocks: number, concurrency = 8, readahead = 16) {
  const api = new FakeEbs({ beforeGet: someTicks, ...options });
  const cache = createBlockCache({ bytes: blocks * BLOCK_SIZE, concurrency });
  const device = await openSnapshotDevice({
    api,
    cache,
    snapshotId: SNAPSHOT,
    readaheadBytes: readahead * BLOCK_SIZE,
  });
  return { api, cache, device };
}

const request = fc.record({
  block: fc.nat(2 * BLOCKS_PER_GIB - 40),
  near: fc.boolean(),
  within: fc.nat(BLOCK_SIZE - 1),
  length: fc.oneof(fc.integer({ min: 0, max: 5_000 }), fc.integer({ min: 0, max: 3 * BLOCK_SIZE })),
  how: fc.constantFrom("read", "view", "abort", "direct"),
});

test("any mix of reads, views, aborts and direct reads gives the snapshot's bytes", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.uniqueArray(fc.nat(2 * BLOCKS_PER_GIB - 1), { maxLength: 40 }),
      fc.array(request, { minLength: 1, maxLength: 25 }),
      fc.integer({ min: 1, max: 20 }),
      async (sparse, requests, blocks) => {
        const written = [...new Set([...sparse, ...Array.from({ length: 60 }, (_, i) => i + 10)])];
        const options: FakeOptions = { volumeSizeGiB: 2, written: written.sort((a, b) => a - b) };
        const { device, cache } = await open(options, blocks);
        const reader = openDirectReader(structuredClone(directReads([{ inode: 9, device }])?.data));
        try {
          await Promise.all(
            requests.map(async ({ block, near, within, length, how }, i) => {
              if (i % 3 === 0) await new Promise((r) => setImmediate(r));
              const offset = (near ? block % 80 : block) * BLOCK_SIZE + within;
              const expected = expectedBytes(options, offset, length);
              if (how === "direct") {
                const parts = reader.tryRead(9, offset, length);
                if (parts !== undefined) expect(Buffer.concat(parts).equals(expected)).toBe(true);
                reader.done();
              } else if (how === "view") {
                const view = await device.view(offset, length);
                await someTicks(i);
                expect(Buffer.concat(view.parts).equals(expected)).toBe(true);
                view.release();
              } else {
                const stop = new AbortController();
                const target = Buffer.alloc(length, 0x55);
                const read = device.read(offset, target, stop.signal);
                if (how === "abort") stop.abort();
                const error = await read.then(
                  () => undefined,
                  (e: Error) => e,
                );
                if (error === undefined) expect(target.equals(expected)).toBe(true);
                else expect(error.message).toMatch(/interrupted/);
              }
            }),
          );
          await expect.poll(() => cache.queue.running + cache.queue.waiting).toBe(0);
          // Nothing is left pinned: the whole cache can be turned over.
          for (let slot = 0; slot < cache.slots; slot += 1) expect(cache.pool.take()).not.toBe(-1);
        } finally {
          await device.close();
          cache.close();
        }
      },
    ),
    { numRuns: 60 },
  );
}, 60_000);

test("concurrent readers of a block share one fetch", async () => {
  const { api, device } = await open({ volumeSizeGiB: 1, written: "all" }, 16);
  const targets = Array.from({ length: 50 }, () => Buffer.alloc(4096));
  await Promise.all(targets.map((target, i) => device.read(5 * BLOCK_SIZE + i * 4096, target)));
  expect(api.gets).toEqual([5]);
});

test("a reader that gives up leaves the fetch to the others", async () => {
  let release = () => {};
  const held = new Promise<void>((resolve) => {
    release = resolve;
  });
  const { api, device } = await open(
    { volumeSizeGiB: 1, written: "all", beforeGet: () => held },
    16,
  );
  const stop = new AbortController();
  const impatient = device.read(0, Buffer.alloc(10), stop.signal);
  const patient = Buffer.alloc(10);
  const waits = device.read(100, patient);
  await expect.poll(() => api.gets.length).toBe(1);
  stop.abort();
  await expect(impatient).rejects.toMatchObject({ errno: "EINTR" });
  release();
  await waits;
  expect(patient.equals(expectedBytes({ volumeSizeGiB: 1, written: "all" }, 100, 10))).toBe(true);
});

test("when the last reader gives up the fetch is stopped, and the next read fetches anew", async () => {
  const signals: AbortSignal[] = [];
  let hang = true;
  const { device, cache } = await open(
    {
      volumeSizeGiB: 1,
      written: "all",
      beforeGet: async (_block, signal) => {
        signals.push(signal as AbortSignal);
        if (hang) {
          await new Promise((_resolve, reject) => {
            signal?.addEventListener("abort", () => reject(new Error("stopped")));
          });
        }
      },
    },
    16,
  );
  const stop = new AbortController();
  const read = device.read(0, Buffer.alloc(10), stop.signal);
  await expect.poll(() => signals.length).toBe(1);
  stop.abort();
  await expect(read).rejects.toMatchObject({ errno: "EINTR" });
  expect(signals[0]?.aborted).toBe(true);
  hang = false;
  await device.read(0, Buffer.alloc(10));
  expect(cache.statistics()).toMatchObject({ fetched: 1, fetchesRunning: 0 });
});

test("a failed fetch is an error for its readers, is not remembered, and frees its slot", async () => {
  let fail = true;
  const { device, cache } = await open(
    {
      volumeSizeGiB: 1,
      written: "all",
      beforeGet: async () => {
        if (fail) throw new Error("broken");
      },
    },
    8,
  );
  for (let i = 0; i < 20; i += 1) {
    await expect(device.view(i * BLOCK_SIZE, 100)).rejects.toThrow("broken");
  }
  fail = false;
  const target = Buffer.alloc(100);
  await device.read(0, target);
  expect(target.equals(expectedBytes({ volumeSizeGiB: 1, written: "all" }, 0, 100))).toBe(true);
  expect(cache.statistics().cachedBytes).toBe(BLOCK_SIZE);
});

test("more views than the cache has room for still get their bytes", async () => {
  const options: FakeOptions = { volumeSizeGiB: 1, written: "all" };
  const { device } = await open(options, 8);
  const views = await Promise.all(
    Array.from({ length: 40 }, (_, i) => device.view(i * 3 * BLOCK_SIZE + 7, 2 * BLOCK_SIZE)),
  );
  views.forEach((view, i) => {
    const expected = expectedBytes(options, i * 3 * BLOCK_SIZE + 7, 2 * BLOCK_SIZE);
    expect(Buffer.concat(view.parts).equals(expected)).toBe(true);
    view.release();
  });
});

test("tokens that stop working while mounted are listed again", async () => {
  const { api, device } = await open({ volumeSizeGiB: 1, written: "all" }, 16);
  await device.read(0, Buffer.alloc(10));
  api.generation = 2;
  const target = Buffer.alloc(3 * BLOCK_SIZE);
  await device.read(100 * BLOCK_SIZE, target);
  const expected = expectedBytes(
    { volumeSizeGiB: 1, written: "all" },
    100 * BLOCK_SIZE,
    target.length,
  );
  expect(target.equals(expected)).toBe(true);
});

test("a sequential reader finds its blocks fetched ahead, also through the direct reader", async () => {
  const options: FakeOptions = { volumeSizeGiB: 1, written: "all" };
  const { api, cache, device } = await open(options, 64, 8, 16);
  const reader = openDirectReader(structuredClone(directReads([{ inode: 9, device }])?.data));
  let direct = 0;
  for (let at = 0; at < 150; at += 0.25) {
    const offset = at * BLOCK_SIZE;
    const parts = reader.tryRead(9, offset, BLOCK_SIZE / 4);
    if (parts === undefined) await device.read(offset, Buffer.alloc(BLOCK_SIZE / 4));
    else {
      direct += 1;
      expect(Buffer.concat(parts).equals(expectedBytes(options, offset, BLOCK_SIZE / 4))).toBe(
        true,
      );
      reader.done();
    }
    for (let i = 0; i < 3; i += 1) await new Promise((r) => setImmediate(r));
  }
  expect(direct).toBeGreaterThan(500);
  expect(new Set(api.gets).size).toBe(api.gets.length);
  expect(cache.statistics().misses).toBeLessThan(60);
  await device.close();
  cache.close();
});

test("extents and allocated bytes come from the index", async () => {
  const options: FakeOptions = { volumeSizeGiB: 1, written: [0, 1, 5, 2047] };
  const { device } = await open(options, 8);
  const extents = [];
  for await (const extent of device.extents(100, 6 * BLOCK_SIZE)) extents.push(extent);
  expect(extents).toEqual([
    { offset: 100, length: 2 * BLOCK_SIZE - 100, kind: "data" },
    { offset: 2 * BLOCK_SIZE, length: 3 * BLOCK_SIZE, kind: "hole" },
    { offset: 5 * BLOCK_SIZE, length: BLOCK_SIZE, kind: "data" },
    { offset: 6 * BLOCK_SIZE, length: 100, kind: "hole" },
  ]);
  expect(device.allocatedBytes()).toBe(4 * BLOCK_SIZE);
});

test("mounting costs one list call, and a read past the end is refused", async () => {
  const { api, device } = await open({ volumeSizeGiB: 65_536, written: "all" }, 8);
  expect([api.lists.length, api.gets.length]).toEqual([1, 0]);
  await device.read(device.size - 10, Buffer.alloc(10));
  expect([api.lists.length, api.gets.length]).toEqual([2, 1]);
  await expect(device.read(device.size - 9, Buffer.alloc(10))).rejects.toMatchObject({
    errno: "EINVAL",
  });
});
