/** The gate against a simulated line: a fluid model of transfers that share its rate, and a server's latency. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { LineGate } from "../../src/ebs/line-gate.js";

const MBIT = 1_000_000 / 8;
const BLOCK = 524_288;

/** What came of `count` blocks over a line. */
interface Run {
  /** Share of the line's rate that was used. */
  readonly used: number;
  readonly slowestMs: number;
  /** Blocks under way, at most, in the second half. */
  readonly most: number;
}

/** @param concurrency callers at a time, as an export has them. */
async function run(
  bytesPerSecond: number,
  latencyMs: number,
  count: number,
  concurrency = 64,
): Promise<Run> {
  let now = 0;
  const gate = new LineGate(concurrency, () => now);
  interface Transfer {
    left: number;
    startsAt: number;
    readonly enteredAt: number;
  }
  const underWay = new Set<Transfer>();
  let started = 0;
  let done = 0;
  let slowestMs = 0;
  let most = 0;
  const startMore = async () => {
    while (started < count && started - done < concurrency) {
      started += 1;
      void gate.enter().then((enteredAt) => {
        underWay.add({ left: BLOCK, startsAt: now + latencyMs, enteredAt });
      });
      await Promise.resolve();
    }
    for (let i = 0; i < 3; i += 1) await Promise.resolve();
  };
  await startMore();
  const stepMs = Math.max(1, Math.min(20, latencyMs / 4));
  while (done < count && now < 100_000_000) {
    now += stepMs;
    const moving = [...underWay].filter(({ startsAt }) => startsAt <= now);
    const share = (bytesPerSecond * stepMs) / 1000 / Math.max(1, moving.length);
    for (const transfer of moving) {
      transfer.left -= share;
      if (transfer.left > 0) continue;
      underWay.delete(transfer);
      done += 1;
      slowestMs = Math.max(slowestMs, now - transfer.enteredAt);
      gate.leave(transfer.enteredAt, true);
    }
    if (done > count / 2) most = Math.max(most, underWay.size);
    await startMore();
  }
  return { used: (count * BLOCK) / bytesPerSecond / (now / 1000), slowestMs, most };
}

test.each([
  [2, 20, 60],
  [4, 30, 120],
  [10, 300, 200],
  [20, 300, 300],
  [50, 100, 400],
])("a line of %d Mbit/s with %d ms is used, and no block takes long", async (mbit, ms, count) => {
  const { used, slowestMs } = await run(mbit * MBIT, ms, count);
  expect(used).toBeGreaterThan(0.9);
  expect(slowestMs).toBeLessThan(25_000);
});

test("on a fast line as many are under way as the caller likes", async () => {
  const { most } = await run(10_000 * MBIT, 30, 3000);
  expect(most).toBe(64);
});

test("a service that takes long is asked for as many at a time", async () => {
  const { most } = await run(10_000 * MBIT, 5_000, 1000);
  expect(most).toBeGreaterThan(50);
});

test("no more are admitted than the limit, none is lost, aborted ones leave no place taken", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 1, max: 20 }),
      fc.array(fc.record({ abort: fc.boolean(), ms: fc.nat(5000) }), { maxLength: 100 }),
      async (most, callers) => {
        let now = 0;
        let underWay = 0;
        const gate = new LineGate(most, () => now);
        const ends = callers.map(async ({ abort, ms }) => {
          const stop = new AbortController();
          const entering = gate.enter(stop.signal);
          if (abort) stop.abort(new Error("no more"));
          let enteredAt: number;
          try {
            enteredAt = await entering;
          } catch {
            return;
          }
          underWay += 1;
          expect(underWay).toBeLessThanOrEqual(most);
          await new Promise((resolve) => setImmediate(resolve));
          underWay -= 1;
          now += ms;
          gate.leave(enteredAt, true);
        });
        await Promise.all(ends);
        expect(gate.limit).toBeGreaterThanOrEqual(Math.min(3, most));
        // Every place is free again.
        for (let i = 0; i < gate.limit; i += 1) await gate.enter();
      },
    ),
    { numRuns: 100 },
  );
});

test("a caller that always leaves one place free gets more as well", async () => {
  let now = 0;
  const gate = new LineGate(64, () => now);
  for (let round = 0; round < 100; round += 1) {
    const entered = await Promise.all(Array.from({ length: gate.limit - 1 }, () => gate.enter()));
    now += 50;
    for (const at of entered) gate.leave(at, true);
  }
  expect(gate.limit).toBeGreaterThan(60);
});
