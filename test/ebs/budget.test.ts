/** A budget is kept to the request and to the billionth of a dollar, and nothing paid for is thrown away. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { Failure } from "../../src/common/failure.js";
import { Budget } from "../../src/ebs/budget.js";
import {
  costOf,
  formatUsd,
  Meter,
  OPERATIONS,
  type Operation,
  PRICE_NANO_USD,
} from "../../src/ebs/meter.js";

const SENT = () => Promise.resolve("sent");

async function errnoOf(work: Promise<unknown>): Promise<string | undefined> {
  return await work.then(
    () => undefined,
    (error: unknown) => (error instanceof Failure ? error.errno : String(error)),
  );
}

test("sends exactly what it covers, also in threads that share it", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.constantFrom(...OPERATIONS), { maxLength: 60 }),
      fc.option(fc.nat(40), { nil: undefined }),
      fc.option(fc.nat(200_000), { nil: undefined }),
      async (operations, maxRequests, maxNanoUsd) => {
        const limits = {
          ...(maxRequests !== undefined && { maxRequests }),
          ...(maxNanoUsd !== undefined && { maxCostUsd: maxNanoUsd / 1e9 }),
        };
        const buffer = new SharedArrayBuffer(16);
        const budgets = [new Budget(limits, buffer), new Budget(limits, buffer)];
        let requests = 0;
        let nanoUsd = 0;
        for (const [i, operation] of operations.entries()) {
          const price = PRICE_NANO_USD[operation];
          const fits =
            requests + 1 <= (maxRequests ?? Number.POSITIVE_INFINITY) &&
            nanoUsd + price <= (maxNanoUsd ?? Number.POSITIVE_INFINITY);
          const budget = budgets[i % 2] as Budget;
          expect(await errnoOf(budget.spend(operation, undefined, SENT))).toBe(
            fits ? undefined : "EDQUOT",
          );
          if (!fits) continue;
          requests += 1;
          nanoUsd += price;
        }
      },
    ),
  );
});

test("fails only when all that is under way has ended, so that none of it is aborted", async () => {
  const budget = new Budget({ maxRequests: 3 });
  const ends: (() => void)[] = [];
  const held = () =>
    new Promise<string>((resolve) => {
      ends.push(() => resolve("sent"));
    });
  const sent = [1, 2, 3].map(() => budget.spend("GetSnapshotBlock", undefined, held));
  let refused = 0;
  const over = [4, 5].map(() =>
    errnoOf(budget.spend("GetSnapshotBlock", undefined, held)).finally(() => {
      refused += 1;
    }),
  );
  expect(ends).toHaveLength(3);
  for (const [i, end] of ends.entries()) {
    expect(refused).toBe(0);
    end();
    expect(await sent[i]).toBe("sent");
  }
  expect(await Promise.all(over)).toEqual(["EDQUOT", "EDQUOT"]);
  expect(ends).toHaveLength(3);
});

test("does not wait for the others once it is interrupted, and a failed request was sent too", async () => {
  const budget = new Budget({ maxRequests: 2 });
  await expect(
    budget.spend("PutSnapshotBlock", undefined, () => Promise.reject(new Error("lost"))),
  ).rejects.toThrow("lost");
  void budget.spend("PutSnapshotBlock", undefined, () => new Promise(() => {}));
  const stop = new AbortController();
  const waiting = errnoOf(budget.spend("PutSnapshotBlock", stop.signal, SENT));
  stop.abort();
  expect(await waiting).toBe("EDQUOT");
});

test("says which limit is reached, and what was spent", async () => {
  const budget = new Budget({ maxCostUsd: 0.00001 });
  for (let i = 0; i < 3; i += 1) await budget.spend("GetSnapshotBlock", undefined, SENT);
  await expect(budget.spend("GetSnapshotBlock", undefined, SENT)).rejects.toThrow(
    "--max-cost $0.000010 is reached (3 requests so far, about $0.0000090). The next command or mount counts from zero.",
  );
  expect(await budget.spend("CompleteSnapshot", undefined, SENT)).toBe("sent");
});

test("a meter counts in the same prices", () => {
  const meter = new Meter();
  const requests = Object.fromEntries(OPERATIONS.map((o, i) => [o, 100 + i]));
  for (const operation of OPERATIONS) {
    for (let i = 0; i < (requests[operation] as number); i += 1) meter.count(operation, "requests");
  }
  const cost = costOf(requests as Record<Operation, number>);
  expect(meter.read().estimatedCostUsd).toBe(cost);
  // 1 TiB read: 2.1 million blocks.
  const all = { ...requests, ...Object.fromEntries(OPERATIONS.map((o) => [o, 0])) };
  expect(costOf({ ...(all as Record<Operation, number>), GetSnapshotBlock: 2_097_152 })).toBe(
    6.291456,
  );
});

test.each([
  [0, "$0.00"],
  [6.291456, "$6.29"],
  [1_234.5, "$1234.50"],
  [0.5, "$0.50"],
  [0.995, "$0.99"],
  [0.0123, "$0.012"],
  [0.0039, "$0.0039"],
  [0.0000006, "$0.00000060"],
])("%d USD is %s", (usd, text) => {
  expect(formatUsd(usd)).toBe(text);
});
