/**
 * Walking a list: all of it, in whatever pages it comes and however often a token expires; and an end,
 * after few calls, to every list that does not lead on.
 */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { LineageDifference } from "../../src/cache/disk-cache-lineage.js";
import { Failure } from "../../src/common/failure.js";
import type { BlockPage, EbsApi, ListOptions } from "../../src/ebs/api.js";
import { EbsError } from "../../src/ebs/errors.js";
import { MAX_EMPTY_PAGES, pageFrom, walkBlocks } from "../../src/ebs/list-walk.js";
import { openBlockIndex } from "../../src/snapshot/block-index.js";
import { BlockList } from "../../src/snapshot/block-list.js";

const SNAPSHOT = "snap-0123456789abcdef0" as const;
const PARENT = "snap-0a" as const;

function pageOf(blocks: readonly number[], nextToken: string | undefined): BlockPage {
  return {
    blockIndexes: Uint32Array.from(blocks),
    blockTokens: blocks.map((block) => `t${block}`),
    expiresAt: Date.now() + 3600_000,
    volumeSizeGiB: 1,
    nextToken,
  };
}

function expired(): EbsError {
  return new EbsError({
    operation: "ListSnapshotBlocks",
    errno: "EIO",
    message: "expired",
    attempts: 1,
    exception: "ValidationException",
    reason: "INVALID_PAGE_TOKEN",
  });
}

/** An api whose list is what `list` gives; counts the calls. */
function apiOf(list: (options: ListOptions, call: number) => BlockPage) {
  const api = {
    calls: 0,
    listSnapshotBlocks: async (_id: string, options: ListOptions = {}) => {
      api.calls += 1;
      return list(options, api.calls);
    },
    listChangedBlocks: async (_first: unknown, _second: unknown, options: ListOptions = {}) => {
      api.calls += 1;
      const page = list(options, api.calls);
      const tokens = page.blockTokens;
      return { ...page, firstTokens: tokens, secondTokens: tokens };
    },
  };
  return api as typeof api & EbsApi;
}

const scenario = fc.record({
  blocks: fc
    .uniqueArray(fc.nat(2047), { maxLength: 80 })
    .map((unsorted) => unsorted.sort((a, b) => a - b)),
  start: fc.nat(2047),
  /** Blocks a page, in turn; 0 is an empty page. */
  sizes: fc.array(fc.nat(5), { minLength: 1, maxLength: 6 }).map((sizes) => [...sizes, 1]),
  /** Calls whose page token has expired. */
  expiredCalls: fc.uniqueArray(fc.integer({ min: 2, max: 60 }), { maxLength: 8 }),
});

it("walks all of a list, and knows what each page proves", async () => {
  await fc.assert(
    fc.asyncProperty(scenario, async ({ blocks, start, sizes, expiredCalls }) => {
      const api = apiOf(({ pageToken, startingBlockIndex = 0 }, call) => {
        if (pageToken !== undefined && expiredCalls.includes(call)) throw expired();
        const from = pageToken === undefined ? startingBlockIndex : Number.parseInt(pageToken, 10);
        const rest = blocks.filter((block) => block >= from);
        const given = rest.slice(0, sizes[call % sizes.length]);
        const next = rest[given.length];
        return pageOf(given, next === undefined ? undefined : `${next}.${call}`);
      });
      const walk = walkBlocks(api, SNAPSHOT, start);
      const found: number[] = [];
      let at = start;
      for (let walked = await walk.next(100); walked; walked = await walk.next(100)) {
        expect(walked.start).toBe(at);
        expect(walked.end).toBeGreaterThanOrEqual(at);
        at = walked.end;
        found.push(...walked.page.blockIndexes);
      }
      expect(at).toBe(Number.POSITIVE_INFINITY);
      expect(found).toEqual(blocks.filter((block) => block >= start));
    }),
    { numRuns: 200 },
  );
});

interface DeadEnd {
  readonly what: string;
  readonly list: (options: ListOptions, call: number) => BlockPage;
  readonly maxCalls: number;
}

const DEAD_ENDS: readonly DeadEnd[] = [
  { what: "empty pages with the same token", list: () => pageOf([], "again"), maxCalls: 6 },
  {
    what: "empty pages whose tokens go in a circle",
    list: (_, call) => pageOf([], `t${call % 3}`),
    maxCalls: 8,
  },
  {
    what: "empty pages with new tokens for ever",
    list: (_, call) => pageOf([], `t${call}`),
    maxCalls: MAX_EMPTY_PAGES + 1,
  },
  {
    what: "the same blocks again",
    list: (_, call) => pageOf([0, 1, 2], `t${call}`),
    maxCalls: 3,
  },
  {
    what: "pages of blocks in a circle",
    list: (_, call) => pageOf([call % 2], `t${call % 2}`),
    maxCalls: 4,
  },
  {
    what: "a block, and then the same token for ever",
    list: ({ pageToken }) => pageOf(pageToken === undefined ? [0] : [], "t"),
    maxCalls: 8,
  },
  {
    what: "page tokens that are always refused, and nothing without one",
    list: ({ pageToken }) => {
      if (pageToken !== undefined) throw expired();
      return pageOf([], "t");
    },
    maxCalls: 12,
  },
];

async function failure(work: Promise<unknown>): Promise<Failure> {
  const error = await work.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(Failure);
  return error as Failure;
}

describe.each(DEAD_ENDS)("a list of $what", ({ list, maxCalls }) => {
  it("ends an export", async () => {
    const api = apiOf(list);
    const walk = async () => {
      for await (const _ of (await BlockList.open(api, SNAPSHOT)).blocks());
    };
    expect(await failure(walk())).toMatchObject({ errno: "EIO" });
    expect(api.calls).toBeLessThanOrEqual(maxCalls);
  });

  it("ends each read of a mount", async () => {
    const api = apiOf(list);
    const index = await openBlockIndex(api, SNAPSHOT);
    api.calls = 0;
    for (let reads = 1; reads <= 2; reads += 1) {
      expect(await failure(index.lookup(1500))).toMatchObject({ errno: "EIO" });
      expect(api.calls).toBeLessThanOrEqual(reads * maxCalls);
    }
  });

  it("ends a look for one block", async () => {
    const api = apiOf(list);
    await failure(pageFrom(api, SNAPSHOT, 1500));
    expect(api.calls).toBeLessThanOrEqual(maxCalls);
  });

  it("says of no block that it is unchanged, and is asked for once", async () => {
    const api = apiOf(list);
    const difference = new LineageDifference(api, PARENT, SNAPSHOT, 1, () => {});
    expect(await difference.isUnchanged(1500)).toBe(false);
    expect(await difference.isUnchanged(1501)).toBe(false);
    expect(api.calls).toBeLessThanOrEqual(8);
  });
});

it("follows as many empty pages as it says", async () => {
  const empty = (count: number) =>
    apiOf((_, call) => (call <= count ? pageOf([], `t${call}`) : pageOf([1500], undefined)));
  const page = await pageFrom(empty(MAX_EMPTY_PAGES), SNAPSHOT, 1500);
  expect([...page.blockIndexes]).toEqual([1500]);
  const error = await failure(pageFrom(empty(MAX_EMPTY_PAGES + 1), SNAPSHOT, 1500));
  expect(error.message).toMatch(/lead nowhere, 51 in a row/);
});
