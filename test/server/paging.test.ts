/** Listing against a plain model: whatever the lineage and the page size, the same blocks. */
import { ListChangedBlocksCommand, ListSnapshotBlocksCommand } from "@aws-sdk/client-ebs";
import fc from "fast-check";
import { expect, test } from "vitest";
import { changedPage } from "../../src/server/changed-blocks.js";
import { encodeRecord, Layer, readLog } from "../../src/server/layer.js";
import { SnapshotView } from "../../src/server/snapshot-view.js";
import { type SyntheticSpec, syntheticHas } from "../../src/server/synthetic.js";
import { rig } from "./rig.js";

const VOLUME = 2048;
const digest = Buffer.alloc(32, 1);

function layerOf(id: string, blocks: readonly number[]): Layer {
  const log = Buffer.concat(blocks.map((block, slot) => encodeRecord(block, slot, digest)));
  return new Layer(id, readLog(id, log));
}

const blockSet = fc.uniqueArray(fc.nat(VOLUME - 1), { maxLength: 300 });
const base = fc.option(
  fc.record({
    volumeSizeGiB: fc.constant(1),
    written: fc.constantFrom(0.001, 0.1, 1),
    seed: fc.nat(1000),
  }),
  { nil: undefined },
);

function viewOf(layers: readonly (readonly number[])[], name: string, spec?: SyntheticSpec) {
  return new SnapshotView(
    layers.map((blocks, depth) => layerOf(`${name}${layers.length - depth}`, blocks)),
    spec,
  );
}

function modelOf(layers: readonly (readonly number[])[], spec?: SyntheticSpec): number[] {
  const all = new Set(layers.flat());
  for (let i = 0; i < VOLUME; i++) if (spec !== undefined && syntheticHas(spec, i)) all.add(i);
  return [...all].sort((a, b) => a - b);
}

test("pages of a lineage join to the model from any start", () => {
  fc.assert(
    fc.property(
      fc.array(blockSet, { minLength: 1, maxLength: 5 }),
      base,
      fc.nat(VOLUME),
      fc.integer({ min: 1, max: 400 }),
      fc.integer({ min: 30, max: 3000 }),
      (layers, spec, from, limit, scanLimit) => {
        const view = viewOf(layers, "s", spec);
        const seen: number[] = [];
        for (let next: number | undefined = from; next !== undefined; ) {
          const page = view.page(next, limit, VOLUME, scanLimit);
          seen.push(...page.blockIndexes);
          expect(page.blockIndexes.length).toBeLessThanOrEqual(limit);
          if (page.next !== undefined) expect(page.next).toBeGreaterThan(next);
          next = page.next;
        }
        expect(seen).toEqual(modelOf(layers, spec).filter((block) => block >= from));
      },
    ),
  );
});

test("the nearest layer owns a block, and changes are where owners differ", () => {
  fc.assert(
    fc.property(
      fc.array(blockSet, { minLength: 1, maxLength: 3 }),
      fc.array(blockSet, { maxLength: 3 }),
      fc.array(blockSet, { maxLength: 3 }),
      base,
      fc.integer({ min: 1, max: 100 }),
      (common, ours, theirs, spec, limit) => {
        const build = (own: readonly (readonly number[])[], name: string) =>
          new SnapshotView(
            [
              ...own.map((blocks, depth) => layerOf(`${name}${depth}`, blocks)),
              ...common.map((blocks, depth) => layerOf(`c${depth}`, blocks)),
            ],
            spec,
          );
        const owner = (own: readonly (readonly number[])[], name: string, block: number) => {
          const mine = own.findIndex((blocks) => blocks.includes(block));
          if (mine >= 0) return `${name}${mine}`;
          const shared = common.findIndex((blocks) => blocks.includes(block));
          if (shared >= 0) return `c${shared}`;
          return spec !== undefined && syntheticHas(spec, block) ? "base" : undefined;
        };
        const [first, second] = [build(ours, "a"), build(theirs, "b")];
        const expected: [number, number, number][] = [];
        for (let block = 0; block < VOLUME; block++) {
          const [before, after] = [owner(ours, "a", block), owner(theirs, "b", block)];
          expect(first.versionOf(block)).toBe(before);
          if (before !== after) {
            expected.push([block, before === undefined ? 0 : 1, after === undefined ? 0 : 1]);
          }
        }
        const seen: [number, number, number][] = [];
        for (let next: number | undefined = 0; next !== undefined; ) {
          const page = changedPage(first, second, next, limit);
          page.blockIndexes.forEach((block, i) => {
            seen.push([block, page.inFirst[i]!, page.inSecond[i]!]);
          });
          next = page.next;
        }
        expect(seen).toEqual(expected);
      },
    ),
    { numRuns: 25 },
  );
});

test("a torn log gives exactly its whole records", () => {
  fc.assert(
    fc.property(blockSet, fc.nat(47), fc.nat(255), (blocks, cut, garbage) => {
      const whole = Buffer.concat(blocks.map((block, slot) => encodeRecord(block, slot, digest)));
      const torn = Buffer.concat([whole, Buffer.alloc(cut, garbage)]);
      const read = readLog("snap-1", torn);
      expect(read.validBytes).toBe(whole.length);
      expect([...read.positions.keys()]).toEqual(blocks);
    }),
  );
});

test("over HTTP: at least 100, startingBlockIndex, page tokens, short and empty pages", async () => {
  const { client, endpoint } = await rig();
  const SnapshotId = endpoint.createSynthetic({ volumeSizeGiB: 1, written: 0.5, seed: 3 });
  const expected = modelOf([], { volumeSizeGiB: 1, written: 0.5, seed: 3 });
  const list = (input: object) =>
    client.send(new ListSnapshotBlocksCommand({ SnapshotId, ...input }));
  expect((await list({})).Blocks).toHaveLength(expected.length);
  expect((await list({ MaxResults: 5 })).Blocks).toHaveLength(100);
  expect((await list({ MaxResults: 10_000 })).Blocks).toHaveLength(expected.length);
  expect((await list({ StartingBlockIndex: 5000 })).Blocks).toEqual([]);
  endpoint.faults.add(
    { action: "short-page", entries: 7, probability: 0.5, seed: 1 },
    { action: "empty-page", probability: 0.3, seed: 2 },
  );
  const seen: number[] = [];
  let [NextToken, empty, short]: [string | undefined, number, number] = [undefined, 0, 0];
  do {
    // The starting block is ignored once there is a token.
    const StartingBlockIndex = NextToken === undefined ? expected[1] : 0;
    const page = await list({ NextToken, MaxResults: 100, StartingBlockIndex });
    seen.push(...page.Blocks!.map((block) => block.BlockIndex!));
    if (page.Blocks!.length === 0) empty += 1;
    if (page.Blocks!.length === 7) short += 1;
    NextToken = page.NextToken ?? undefined;
  } while (NextToken !== undefined);
  expect(seen).toEqual(expected.slice(1));
  expect(empty).toBeGreaterThan(0);
  expect(short).toBeGreaterThan(0);
  endpoint.faults.clear();
  endpoint.faults.add({ action: "empty-page", count: 1 });
  const changed = new ListChangedBlocksCommand({
    FirstSnapshotId: SnapshotId,
    SecondSnapshotId: SnapshotId,
  });
  const page = await client.send(changed);
  expect(page.NextToken).toBeTruthy();
  await expect(list({ NextToken: page.NextToken })).rejects.toMatchObject({
    Reason: "INVALID_PAGE_TOKEN",
  });
});
