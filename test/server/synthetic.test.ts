import { ListSnapshotBlocksCommand } from "@aws-sdk/client-ebs";
import fc from "fast-check";
import { expect, test } from "vitest";
import { BLOCK_SIZE, SECTOR_SIZE } from "../../src/common/sizes.js";
import { syntheticBytes, syntheticHas } from "../../src/server/synthetic.js";
import { parseSyntheticText } from "../../src/server/synthetic-spec.js";
import { blockOf, get, rig, snapshotOf } from "./rig.js";

const LAST = 64 * 1024 * 2048 - 1;

test("64 TiB fully written: any block, with its right checksum", async () => {
  const { client, endpoint } = await rig();
  const spec = parseSyntheticText("size=64TiB,written=all,seed=9");
  const SnapshotId = endpoint.createSynthetic(spec);
  expect(endpoint.createSynthetic(spec)).toBe(SnapshotId);
  for (const StartingBlockIndex of [0, 4093, 123_456_789, LAST]) {
    const { Blocks } = await client.send(
      new ListSnapshotBlocksCommand({ SnapshotId, StartingBlockIndex, MaxResults: 100 }),
    );
    expect(Blocks![0]!.BlockIndex).toBe(StartingBlockIndex);
    const data = await get(client, SnapshotId, StartingBlockIndex, Blocks![0]!.BlockToken!);
    expect(data.equals(syntheticBytes(spec, StartingBlockIndex * BLOCK_SIZE, BLOCK_SIZE))).toBe(
      true,
    );
  }
});

test("a real snapshot can have a synthetic parent", async () => {
  const { client, endpoint } = await rig();
  const spec = { volumeSizeGiB: 65_536, written: 1, seed: 2 };
  const ParentSnapshotId = endpoint.createSynthetic(spec);
  const child = await snapshotOf(
    client,
    { 5: 1, [LAST]: 2 },
    { VolumeSize: 65_536, ParentSnapshotId },
  );
  const from = async (StartingBlockIndex: number) =>
    (
      await client.send(
        new ListSnapshotBlocksCommand({ SnapshotId: child, StartingBlockIndex, MaxResults: 100 }),
      )
    ).Blocks!;
  const blocks = await from(4);
  expect(blocks.slice(0, 3).map((block) => block.BlockIndex)).toEqual([4, 5, 6]);
  const bytes = await Promise.all(
    blocks.slice(0, 2).map((block) => get(client, child, block.BlockIndex!, block.BlockToken!)),
  );
  expect(bytes[0]!.equals(syntheticBytes(spec, 4 * BLOCK_SIZE, BLOCK_SIZE))).toBe(true);
  expect(bytes[1]!.equals(blockOf(1))).toBe(true);
  const last = (await from(LAST))[0]!;
  expect((await get(client, child, LAST, last.BlockToken!)).equals(blockOf(2))).toBe(true);
});

test("any range is the same as the blocks around it, and no two sectors are alike", () => {
  const spec = { volumeSizeGiB: 4, written: 0.5, seed: 4 };
  fc.assert(
    fc.property(fc.nat(8000 * BLOCK_SIZE), fc.integer({ min: 1, max: 2 * BLOCK_SIZE }), (at, n) => {
      const bytes = syntheticBytes(spec, at, n);
      const first = Math.floor(at / BLOCK_SIZE);
      const whole = syntheticBytes(spec, first * BLOCK_SIZE, 4 * BLOCK_SIZE);
      const start = at - first * BLOCK_SIZE;
      expect(bytes.equals(whole.subarray(start, start + n))).toBe(true);
      for (let block = 0; block < 4; block++) {
        const isZero = whole
          .subarray(block * BLOCK_SIZE, (block + 1) * BLOCK_SIZE)
          .equals(Buffer.alloc(BLOCK_SIZE));
        expect(isZero).toBe(!syntheticHas(spec, first + block));
      }
    }),
    { numRuns: 20 },
  );
  const full = { ...spec, written: 1 };
  const sectors = new Set<string>();
  for (const block of [0, 1, 8191]) {
    const bytes = syntheticBytes(full, block * BLOCK_SIZE, BLOCK_SIZE);
    for (let i = 0; i < BLOCK_SIZE; i += SECTOR_SIZE) {
      sectors.add(bytes.toString("latin1", i, i + SECTOR_SIZE));
    }
  }
  expect(sectors.size).toBe((3 * BLOCK_SIZE) / SECTOR_SIZE);
});

test("descriptions that are wrong get a sentence", () => {
  for (const text of ["", "size=0", "size=65TiB", "size=1GiB,written=2", "size=1GiB,colour=red"]) {
    expect(() => parseSyntheticText(text)).toThrow(/size=64TiB/);
  }
  expect(parseSyntheticText("size=1TiB,written=0.25")).toEqual({
    volumeSizeGiB: 1024,
    written: 0.25,
    seed: 1,
  });
});
