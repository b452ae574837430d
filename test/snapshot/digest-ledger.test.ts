import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterEach, beforeEach, expect, test } from "vitest";
import { FileDigests } from "../../src/snapshot/digest-ledger.js";

let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "ebsmount-test-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const digestOf = (seed: number) => new Uint8Array(32).fill(1 + (seed % 255));

test("a ledger holds what was noted last, in the order of blocks, now and when it is opened again", async () => {
  const step = fc.record({
    block: fc.oneof(fc.nat(200), fc.nat(100_000_000)),
    seed: fc.nat(1000),
    look: fc.boolean(),
    reopen: fc.nat(20).map((n) => n === 0),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 200 }), async (steps) => {
      const path = join(folder, `ledger-${Math.random()}`);
      const model = new Map<number, Uint8Array>();
      let ledger = await FileDigests.open(path, true);
      for (const { block, seed, look, reopen } of steps) {
        model.set(block, digestOf(seed));
        await ledger.set(block, digestOf(seed));
        if (look)
          expect(Buffer.from((await ledger.get(block)) ?? [])).toEqual(Buffer.from(digestOf(seed)));
        if (!reopen) continue;
        await ledger.close();
        ledger = await FileDigests.open(path, false);
      }
      const found: [number, string][] = [];
      for await (const { blockIndex, digest } of ledger.entries()) {
        found.push([blockIndex, Buffer.from(digest).toString("hex")]);
      }
      const expected = [...model]
        .sort(([a], [b]) => a - b)
        .map(([block, digest]) => [block, Buffer.from(digest).toString("hex")]);
      expect(found).toEqual(expected);
      await ledger.close();
    }),
    { numRuns: 40 },
  );
});
