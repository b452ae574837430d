/**
 * Servers that page in every way there is: whoever walks a list gets all of it, or an error, and never
 * a part that looks like the whole.
 */
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { type Listed, type Page, readBlockPage } from "../../src/ebs/answers.js";
import type { BlockPage, EbsApi, ListOptions } from "../../src/ebs/api.js";
import { askedOf, listPage } from "../../src/ebs/list-end.js";
import { BlockIndex } from "../../src/snapshot/block-index.js";
import { BlockList } from "../../src/snapshot/block-list.js";

const SNAPSHOT = "snap-0123456789abcdef0";

interface Server {
  readonly blocks: readonly number[];
  /** Gives no more than maxResults, and at least 100. */
  readonly limits: boolean;
  readonly forgetsToken: boolean;
  readonly ignoresStart: boolean;
}

/** What the server answers, read as sdk-ebs.ts reads it. */
function apiOf(server: Server): EbsApi {
  const list = async (options: ListOptions = {}): Promise<BlockPage> =>
    listPage(askedOf(options), async (asked): Promise<Listed<BlockPage>> => {
      const from = asked.pageToken ?? (server.ignoresStart ? 0 : (asked.startingBlockIndex ?? 0));
      const rest = server.blocks.filter((block) => block >= Number(from));
      const limit = server.limits ? Math.max(asked.maxResults ?? 10_000, 100) : rest.length;
      const given = rest.slice(0, limit);
      const body = {
        Blocks: given.map((index) => ({ BlockIndex: String(index), BlockToken: `t${index}` })),
        VolumeSize: 1,
        ...(!server.forgetsToken &&
          rest.length > limit && { NextToken: String((given.at(-1) as number) + 1) }),
      };
      return readBlockPage(Buffer.from(JSON.stringify(body)), asked);
    });
  return { listSnapshotBlocks: (_id: string, options: ListOptions) => list(options) } as EbsApi;
}

async function walked(api: EbsApi, maxResults: number, startingBlockIndex: number) {
  const found: number[] = [];
  let pageToken: string | undefined;
  for (let pages = 0; ; pages += 1) {
    if (pages === 100) throw new Error("the walk does not end");
    const page: Page = await api.listSnapshotBlocks(SNAPSHOT, {
      startingBlockIndex,
      maxResults,
      ...(pageToken !== undefined && { pageToken }),
    });
    // Servers that do not heed the start have tokens that lead to blocks before it.
    found.push(...page.blockIndexes.filter((block) => block >= startingBlockIndex));
    if (page.nextToken === undefined) return found;
    pageToken = page.nextToken;
  }
}

/** Every `stride`th block: `pages` times what is asked for at a time, and some. */
const wholes = fc
  .record({
    maxResults: fc.constantFrom(100, 101, 200, 1000),
    pages: fc.nat(3),
    more: fc.constantFrom(0, 0, -1, 1, 57),
    stride: fc.constantFrom(1, 1, 2, 5),
    limits: fc.boolean(),
    forgetsToken: fc.boolean(),
    ignoresStart: fc.boolean(),
  })
  .map(({ maxResults, pages, more, stride, ...kind }) => {
    const count = Math.min(Math.max(0, pages * maxResults + more), Math.floor(2048 / stride));
    const blocks = Array.from({ length: count }, (_, i) => i * stride);
    return { maxResults, server: { ...kind, blocks } };
  });

test("a walk from anywhere gives all blocks, or fails where the server's list has no end", async () => {
  await fc.assert(
    fc.asyncProperty(wholes, fc.nat(2047), async ({ server, maxResults }, start) => {
      const isHopeless = server.limits && server.forgetsToken && server.ignoresStart;
      const asked = walked(apiOf(server), maxResults, start);
      if (isHopeless) {
        const found = await asked.catch(() => undefined);
        if (found === undefined) return;
        expect(found).toEqual(server.blocks.filter((block) => block >= start));
      } else {
        expect(await asked).toEqual(server.blocks.filter((block) => block >= start));
      }
    }),
    { numRuns: 300 },
  );
}, 60_000);

test.each([
  ["a full page without a token", { limits: true, forgetsToken: true, ignoresStart: false }],
  ["no paging at all", { limits: false, forgetsToken: true, ignoresStart: true }],
])("%s: the block index and the block list know every block", async (_, kind) => {
  for (const count of [999, 1000, 1001, 2000]) {
    const blocks = Array.from({ length: count }, (_, i) => i);
    const api = apiOf({ blocks, ...kind });
    const first = await api.listSnapshotBlocks(SNAPSHOT, { maxResults: 1000 });
    const index = new BlockIndex(api, SNAPSHOT, first, 16 * 1024 * 1024);
    expect(await index.lookup(count - 1)).toBe(`t${count - 1}`);
    expect(await index.lookup(2040)).toBeUndefined();
    const list = await BlockList.open(api, SNAPSHOT);
    let listed = 0;
    for await (const { blockIndex } of list.blocks()) expect(blockIndex).toBe(listed++);
    expect(listed).toBe(count);
  }
});

test("a far read goes on where everything fits the page asked for exactly", async () => {
  const blocks = Array.from({ length: 1000 }, (_, i) => i);
  const api = apiOf({ blocks, limits: false, forgetsToken: true, ignoresStart: true });
  const first = await api.listSnapshotBlocks(SNAPSHOT, { maxResults: 1000 });
  const index = new BlockIndex(api, SNAPSHOT, first, 16 * 1024 * 1024);
  expect(await index.lookup(2000)).toBeUndefined();
});

test("a list that stops short and cannot be gone on with is refused", async () => {
  const blocks = Array.from({ length: 2048 }, (_, i) => i);
  const api = apiOf({ blocks, limits: true, forgetsToken: true, ignoresStart: true });
  await expect(walked(api, 1000, 0)).rejects.toThrow(/ignores startingBlockIndex/);
});
