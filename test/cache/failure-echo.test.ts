import { expect, it, vi } from "vitest";
import { FailureEcho } from "../../src/cache/failure-echo.js";
import { Failure } from "../../src/common/failure.js";

const late = new Failure("ETIMEDOUT", "Too late.");

it("tells each waiter's repeat once", () => {
  const echo = new FailureEcho();
  echo.add(7, late, 2);
  echo.add(7, late, 1);
  expect([1, 2, 3, 4].map(() => echo.take(7))).toEqual([late, late, late, undefined]);
  expect(echo.take(8)).toBe(undefined);
});

it("tells nothing that is found out soon, or that nobody waited for", () => {
  const echo = new FailureEcho();
  echo.add(7, new Failure("EIO", "Damaged."), 1);
  echo.add(7, late, 0);
  expect(echo.take(7)).toBe(undefined);
});

it("falls silent by itself", async () => {
  const echo = new FailureEcho();
  echo.add(7, late, 1_000_000);
  expect(echo.take(7)).toBe(late);
  await vi.waitUntil(() => echo.take(7) === undefined, { timeout: 2_000 });
});
