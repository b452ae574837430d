import { Worker } from "node:worker_threads";
import fc from "fast-check";
import { afterEach, expect, test } from "vitest";
import type { DirectReaderData } from "../../src/cache/direct-reader.js";
import { SlotPool } from "../../src/cache/slot-pool.js";
import { HOLE, MISS, SlotTable } from "../../src/cache/slot-table.js";
import { BLOCK_SIZE, TIB } from "../../src/common/sizes.js";
import { workerUrl } from "../../src/common/worker-url.js";

const workers: Worker[] = [];

afterEach(async () => {
  await Promise.all(workers.splice(0).map((worker) => worker.terminate()));
});

/** The model: which block each slot holds and how often it is pinned. */
const operation = fc.tuple(
  fc.constantFrom("take", "publish", "pin", "unpin", "giveBack", "hole"),
  fc.integer({ min: 1, max: 3 }),
  fc.nat(20),
);

test("the table is a map from block to slot, whatever is published, pinned and taken", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 9 }),
      fc.array(operation, { maxLength: 200 }),
      (slots, steps) => {
        const pool = new SlotPool(slots);
        const other = new SlotTable(structuredClone(pool.memory));
        const content = new Map<number, string>();
        const owned: number[] = [];
        const pinned: number[] = [];
        const holes = new Set<string>();
        for (const [step, device, block] of steps) {
          const name = `${device}/${block}`;
          const held = [...content].find(([, key]) => key === name)?.[0];
          if (step === "take") {
            const slot = pool.take();
            const stuck = new Set([...pinned, ...owned]).size;
            expect(slot === MISS).toBe(stuck === slots);
            if (slot === MISS) continue;
            expect(pinned).not.toContain(slot);
            expect(owned).not.toContain(slot);
            content.delete(slot);
            owned.push(slot);
          } else if (step === "publish" && held === undefined && owned.length > 0) {
            const slot = owned.pop() as number;
            pool.publish(slot, device, block, 1, false);
            content.set(slot, name);
            pinned.push(slot);
          } else if (step === "pin") {
            const slot = other.pin(device, block);
            expect(slot).toBe(held ?? (holes.has(name) ? HOLE : MISS));
            if (slot >= 0) pinned.push(slot);
          } else if (step === "unpin" && pinned.length > 0) {
            const [slot] = pinned.splice(block % pinned.length, 1);
            other.unpin(slot as number);
          } else if (step === "giveBack" && owned.length > 0) pool.giveBack(owned.pop() as number);
          else if (step === "hole" && held === undefined) {
            pool.table.rememberHole(device, block);
            holes.add(name);
          }
        }
      },
    ),
    { numRuns: 500 },
  );
});

test("a slot waited for comes with the next release, or the wait ends", async () => {
  const pool = new SlotPool(2);
  pool.publish(pool.take(), 1, 1, 1, false);
  pool.publish(pool.take(), 1, 2, 1, false);
  await expect(pool.takeSoon(5)).rejects.toMatchObject({ errno: "ENOMEM" });
  const soon = pool.takeSoon(10_000);
  // As another thread releases: nothing here is told.
  new SlotTable(pool.memory).unpin(pool.table.find(1, 2));
  expect(pool.table.bytes(await soon)).toBe(pool.table.bytes(1));
});

test("blocks read lately outlive others, but read-once blocks do not outlive those read ahead", () => {
  const pool = new SlotPool(16);
  const other = new SlotTable(pool.memory);
  const publish = (block: number) => {
    const slot = pool.take();
    pool.publish(slot, 1, block, 0, true);
  };
  publish(1000);
  for (let block = 0; block < 100; block += 1) {
    publish(block + 6);
    for (const read of [block, 1000]) {
      const slot = other.pin(1, read);
      if (slot >= 0) {
        other.unmark(slot);
        other.unpin(slot);
      }
      if (block > 6) expect(slot).toBeGreaterThanOrEqual(0);
    }
  }
  expect(pool.wasted).toBe(0);
});

/** Runs `body`; before its n-th atomic access, as if another thread came in between, hooks[n]. */
function interleaved<T>(hooks: ReadonlyMap<number, () => void>, body: () => T): T {
  const kept = { load: Atomics.load, compareExchange: Atomics.compareExchange };
  let step = 0;
  let inside = false;
  const before = () => {
    if (inside) return;
    inside = true;
    hooks.get(step)?.();
    step += 1;
    inside = false;
  };
  Atomics.load = ((...args: Parameters<typeof kept.load>) => {
    before();
    return kept.load(...args);
  }) as typeof Atomics.load;
  Atomics.compareExchange = ((...args: Parameters<typeof kept.compareExchange>) => {
    before();
    return kept.compareExchange(...args);
  }) as typeof Atomics.compareExchange;
  try {
    return body();
  } finally {
    Object.assign(Atomics, kept);
  }
}

test("no interleaving of a reader with turnover returns or disturbs another block's slot", () => {
  const turn = fc.tuple(fc.nat(12), fc.nat(5));
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 3 }),
      fc.array(fc.nat(5), { maxLength: 6 }),
      fc.array(turn, { maxLength: 8 }),
      fc.nat(5),
      (slots, before, during, wanted) => {
        const pool = new SlotPool(slots);
        const reader = new SlotTable(pool.memory);
        const content = new Map<number, number>();
        const publish = (block: number) => {
          if (pool.table.find(1, block) !== MISS) return;
          const slot = pool.take();
          if (slot === MISS) return;
          content.set(slot, block);
          pool.publish(slot, 1, block, 0, false);
        };
        before.forEach(publish);
        const hooks = new Map(during.map(([step, block]) => [step, () => publish(block)]));
        const slot = interleaved(hooks, () => reader.pin(1, wanted));
        if (slot !== MISS) {
          expect(content.get(slot)).toBe(wanted);
          // Pinned: whatever is published next, it stays.
          for (let block = 6; block < 12; block += 1) publish(block);
          expect(content.get(slot)).toBe(wanted);
          reader.unpin(slot);
        }
        // No pin is left behind: every slot can be taken.
        for (let n = 0; n < slots; n += 1) expect(pool.take()).not.toBe(MISS);
      },
    ),
    { numRuns: 3_000 },
  );
});

const HAMMER = `
const { parentPort, workerData } = require("node:worker_threads");
import(workerData.module).then(({ openDirectReader }) => {
  const reader = openDirectReader(workerData.data);
  let hits = 0, wrong = 0, seed = workerData.seed;
  const end = Date.now() + 1500;
  while (Date.now() < end) {
    for (let i = 0; i < 200; i += 1) {
      seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
      const block = (seed >>> 8) % 24;
      const parts = reader.tryRead(1, block * 524288 + 524288 - 64, 128);
      if (parts === undefined) continue;
      hits += 1;
      // Several looks, so that a slot changed under the reader would show.
      for (let look = 0; look < 20; look += 1) {
        for (let p = 0; p < parts.length; p += 1) {
          const word = new Int32Array(parts[p].buffer, parts[p].byteOffset, 16);
          for (let w = 0; w < 16; w += 1) if (word[w] !== block + p) wrong += 1;
        }
      }
      reader.done();
    }
  }
  parentPort.postMessage({ hits, wrong });
});
`;

test("hammered from other threads while slots turn over, no read sees another block's bytes", async () => {
  const pool = new SlotPool(6);
  const data: DirectReaderData = {
    memory: pool.memory,
    files: [{ inode: 1, device: 1, size: TIB }],
    channel: "test",
  };
  const module = workerUrl(
    new URL("../../src/cache/x.ts", import.meta.url).href,
    "./direct-reader.js",
  );
  let running = 2;
  const results = [1, 2].map(
    (seed) =>
      new Promise<{ hits: number; wrong: number }>((resolve, reject) => {
        const workerData = { module: module.href, data, seed };
        const worker = new Worker(HAMMER, { eval: true, workerData });
        workers.push(worker);
        worker.once("message", resolve);
        worker.once("error", reject);
        worker.once("exit", () => {
          running -= 1;
        });
      }),
  );
  let turned = 0;
  for (let n = 0; running > 0; n += 1) {
    for (let i = 0; i < 300; i += 1) {
      const block = (n * 300 + i) % 25;
      if (pool.table.find(1, block) !== MISS) continue;
      const slot = pool.take();
      if (slot === MISS) continue;
      const bytes = pool.table.bytes(slot);
      const words = new Int32Array(bytes.buffer, bytes.byteOffset, BLOCK_SIZE / 4);
      words.fill(-1, 0, 16).fill(block, 0, 16);
      words.fill(-1, -16).fill(block, -16);
      pool.publish(slot, 1, block, 0, true);
      turned += 1;
    }
    await new Promise((resolve) => setImmediate(resolve));
  }
  const both = await Promise.all(results);
  expect(turned).toBeGreaterThan(1_000);
  for (const { hits, wrong } of both) {
    expect(hits).toBeGreaterThan(1_000);
    expect(wrong).toBe(0);
  }
});
