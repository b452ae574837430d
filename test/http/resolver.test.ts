/** Host names: one look-up at a time for each, results that are kept, failures that are not. */
import { lookup } from "node:dns/promises";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { forgetHost, resolveHost } from "../../src/http/resolver.js";

vi.mock("node:dns/promises", () => ({ lookup: vi.fn() }));
const lookUp = vi.mocked(lookup) as unknown as ReturnType<typeof vi.fn>;
let now = 1e9;

beforeEach(() => {
  now += 1e9;
  vi.spyOn(performance, "now").mockImplementation(() => now);
  lookUp.mockReset();
  lookUp.mockImplementation(async (host: string) => [
    { address: "10.0.0.1", family: 4 },
    { address: `2001:db8::${host.length}`, family: 6 },
  ]);
});
afterEach(() => vi.restoreAllMocks());

test("gives all addresses in the system's order", async () => {
  expect(await resolveHost("order.example")).toEqual(["10.0.0.1", "2001:db8::13"]);
  expect(lookUp).toHaveBeenCalledWith("order.example", { all: true, verbatim: true });
});

test("looks no address up", async () => {
  expect(await resolveHost("10.0.0.9")).toEqual(["10.0.0.9"]);
  expect(await resolveHost("::1")).toEqual(["::1"]);
  expect(lookUp).not.toHaveBeenCalled();
});

test("shares one look-up, and uses its result for a minute", async () => {
  const [one, two] = await Promise.all([
    resolveHost("shared.example"),
    resolveHost("shared.example"),
  ]);
  expect(one).toBe(two);
  now += 59_000;
  await resolveHost("shared.example");
  expect(lookUp).toHaveBeenCalledTimes(1);
  now += 2_000;
  await resolveHost("shared.example");
  expect(lookUp).toHaveBeenCalledTimes(2);
});

test("a slow look-up stays shared, however long it takes", async () => {
  let finish = (_: unknown) => {};
  lookUp.mockImplementation(
    () =>
      new Promise((resolve) => {
        finish = resolve;
      }),
  );
  const one = resolveHost("slow.example");
  now += 600_000;
  const two = resolveHost("slow.example");
  forgetHost("slow.example");
  finish([{ address: "10.0.0.2", family: 4 }]);
  expect([await one, await two]).toEqual([["10.0.0.2"], ["10.0.0.2"]]);
  expect(lookUp).toHaveBeenCalledTimes(1);
});

test.each([
  ["ENOTFOUND", /there is no such name/],
  ["EAI_AGAIN", /name servers do not respond/],
  ["EWEIRD", /look-up failed/],
])("%s is an error in words, and is not kept", async (code, words) => {
  lookUp.mockRejectedValueOnce(Object.assign(new Error(`getaddrinfo ${code}`), { code }));
  const error = await resolveHost(`${code}.example`).catch((thrown: unknown) => thrown);
  expect(error).toMatchObject({ name: "HttpError", kind: "name" });
  expect((error as Error).message).toMatch(words);
  expect((error as Error).message).toContain(`${code}.example`);
  expect(await resolveHost(`${code}.example`)).toHaveLength(2);
});

test("a name without addresses is an error", async () => {
  lookUp.mockResolvedValueOnce([]);
  await expect(resolveHost("bare.example")).rejects.toMatchObject({ kind: "name" });
});

test("looks up again what could not be reached", async () => {
  await resolveHost("moved.example");
  forgetHost("moved.example");
  await resolveHost("moved.example");
  expect(lookUp).toHaveBeenCalledTimes(2);
});

test("keeps 64 names, the latest", async () => {
  for (let i = 0; i < 65; i += 1) await resolveHost(`many-${i}.example`);
  expect(lookUp).toHaveBeenCalledTimes(65);
  await resolveHost("many-64.example");
  await resolveHost("many-1.example");
  expect(lookUp).toHaveBeenCalledTimes(65);
  await resolveHost("many-0.example");
  expect(lookUp).toHaveBeenCalledTimes(66);
});
