import fc from "fast-check";
import { expect, test } from "vitest";
import { BLOCKS_PER_GIB } from "../../src/common/sizes.js";
import type { EbsApi } from "../../src/ebs/api.js";
import { listCallsToReadAll, openBlockIndex } from "../../src/snapshot/block-index.js";
import { FakeEbs, type FakeOptions } from "../ebs/fake-ebs.js";

const SNAPSHOT = "snap-0a";

function token(index: number, generation = 1): string {
  return `${SNAPSHOT}/${index}/${generation}`;
}

test("64 TiB fully written: two list calls to any block, memory within its budget", async () => {
  const api = new FakeEbs({ volumeSizeGiB: 65_536, written: "all" });
  const budget = 300_000;
  const index = await openBlockIndex(api, SNAPSHOT, { bytes: budget });
  expect(api.lists.length).toBe(1);
  const last = 65_536 * BLOCKS_PER_GIB - 1;
  for (const block of [last, 77_777_777, 0, 1_000_000, 133_999_999, 5_000_000]) {
    const before = api.lists.length;
    expect(await index.lookup(block)).toBe(token(block));
    expect(api.lists.length - before).toBeLessThanOrEqual(1);
    expect(index.bytes).toBeLessThanOrEqual(budget);
  }
});

const scenario = fc.record({
  written: fc.uniqueArray(fc.nat(2 * BLOCKS_PER_GIB - 1), { maxLength: 60 }),
  limits: fc.array(fc.integer({ min: 0, max: 9 }), { minLength: 1, maxLength: 6 }),
  bytes: fc.integer({ min: 500, max: 20_000 }),
  lookups: fc.array(fc.nat(2 * BLOCKS_PER_GIB - 1), { minLength: 1, maxLength: 30 }),
});

test("whatever the pages, every lookup, run and count is that of the model", async () => {
  await fc.assert(
    fc.asyncProperty(scenario, async ({ written, limits, bytes, lookups }) => {
      written.sort((a, b) => a - b);
      const set = new Set(written);
      const options: FakeOptions = {
        volumeSizeGiB: 2,
        written,
        // Never only empty pages, or the list would not end.
        pageLimit: (call) =>
          call % 5 === 0 || !api.pageTokensWork ? 3 : (limits[call % limits.length] as number),
      };
      const api: FakeEbs = new FakeEbs(options);
      const index = await openBlockIndex(api, SNAPSHOT, { bytes });
      const found = await Promise.all(
        [...lookups, ...written.slice(0, 5)].map(async (block, i) => {
          if (i % 7 === 3) api.pageTokensWork = !api.pageTokensWork;
          return [block, await index.lookup(block)] as const;
        }),
      );
      for (const [block, got] of found) expect(got).toBe(set.has(block) ? token(block) : undefined);
      for (const block of lookups) {
        const known = index.peek(block);
        if (known !== undefined) expect(known).toBe(set.has(block) ? "data" : "hole");
      }
      const [from, to] = [lookups[0] as number, 2 * BLOCKS_PER_GIB];
      let at = from;
      for await (const run of index.runs(from, to)) {
        expect(run.start).toBe(at);
        expect(run.end).toBeGreaterThan(run.start);
        for (let b = run.start; b < run.end; b += 1) expect(set.has(b)).toBe(run.kind === "data");
        at = run.end;
      }
      expect(at).toBe(to);
      for await (const _ of index.runs(0, to));
      expect(index.allocatedBlocks()).toBe(written.length);
    }),
    { numRuns: 150 },
  );
});

test("one listing serves concurrent lookups of its range", async () => {
  const api = new FakeEbs({ volumeSizeGiB: 8, written: "all" });
  const index = await openBlockIndex(api, SNAPSHOT);
  await Promise.all(Array.from({ length: 200 }, (_, i) => index.lookup(9_000 + i)));
  expect(api.lists.length).toBe(2);
});

test("pages grow while listing goes on in sequence, and are small at a jump", async () => {
  const api = new FakeEbs({ volumeSizeGiB: 64, written: "all" });
  const index = await openBlockIndex(api, SNAPSHOT);
  for (let block = 0; block < 40_000; block += 100) await index.lookup(block);
  await index.lookup(100_000);
  expect(api.lists.map((list) => list.maxResults)).toEqual([
    100, 1000, 4000, 10000, 10000, 10000, 10000, 1000,
  ]);
});

test.each([0, 1, 99, 100, 101, 1100, 1101, 20_000])(
  "reading %i blocks in sequence takes as many list calls as are foretold",
  async (blocks) => {
    const written = Array.from({ length: blocks }, (_, i) => i * 2);
    const api = new FakeEbs({ volumeSizeGiB: 32, written });
    const index = await openBlockIndex(api, SNAPSHOT);
    for (let block = 0; block < 2 * blocks; block += 1) await index.lookup(block);
    expect(api.lists.length).toBe(listCallsToReadAll(blocks));
  },
);

test("a refused token is listed again, once for all that had it", async () => {
  const api = new FakeEbs({ volumeSizeGiB: 1, written: [1, 2, 3] });
  const index = await openBlockIndex(api, SNAPSHOT);
  api.generation = 2;
  const again = await Promise.all(
    [1, 2, 3].map((block) => {
      index.invalidate(block, token(block));
      return index.lookup(block);
    }),
  );
  expect(again).toEqual([1, 2, 3].map((block) => token(block, 2)));
  expect(api.lists.length).toBe(2);
  index.invalidate(1, token(1));
  await index.lookup(1);
  expect(api.lists.length).toBe(2);
});

test("expired tokens are listed again; holes stay known", async () => {
  const api = new FakeEbs({ volumeSizeGiB: 1, written: [5], lifeMs: 1_200 });
  const index = await openBlockIndex(api, SNAPSHOT);
  expect(await index.lookup(5)).toBe(token(5));
  api.generation = 2;
  await expect.poll(() => index.lookup(5), { timeout: 5_000, interval: 100 }).toBe(token(5, 2));
  expect(api.lists.length).toBe(2);
  expect(await index.lookup(6)).toBeUndefined();
});

test("an endless chain of empty pages is an error, not a hole", async () => {
  const api = new FakeEbs({ volumeSizeGiB: 1, written: [9], pageLimit: () => 0 });
  const index = await openBlockIndex(api, SNAPSHOT);
  await expect(index.lookup(3)).rejects.toThrow(/lead nowhere/);
});

test("a list out of order is an error once it is seen", async () => {
  const block = (index: number) => ({ blockIndexes: Uint32Array.of(index), blockTokens: ["t"] });
  const head = { volumeSizeGiB: 1, expiresAt: Date.now() + 3600_000 };
  const api = {
    listSnapshotBlocks: async (_id: string, { pageToken }: { pageToken?: string }) =>
      pageToken === undefined
        ? { ...head, ...block(1000), nextToken: "more" }
        : { ...head, ...block(3), nextToken: undefined },
  } as unknown as EbsApi;
  const index = await openBlockIndex(api, "snap-0123456789abcdef0");
  await expect(index.lookup(1500)).rejects.toThrow(/block 3 .* out of order/);
});
